"""Bounds of the fields of `Sampling`, stated once for requests, task files and the engine.

Wire and task files use the types, so that the error for a number out of range names its field or
its line; code that gets a request another way calls `check_sampling`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, Field
from pydantic_core import PydanticCustomError

from qwen_aio.core import Sampling, SamplingWish
from qwen_aio.errors import InvalidRequest

Number = TypeVar("Number", int, float)

MAX_TOKENS = 4096  # of an answer, however large the context is
MAX_STOPS = 8  # stop strings
MAX_STOP_CHARS = 64  # of each; text waits in the engine while it might become one
MAX_SCHEMA_CHARS = 20_000  # of a JSON schema, written as JSON
MAX_TOP_LOGPROBS = 20  # likely tokens listed beside each sampled one


@dataclass(frozen=True)
class Bounds:
    """All numbers from `least` to `most`; `above` excludes `least` itself."""

    least: float
    most: float
    above: bool = False

    def __contains__(self, value: float) -> bool:
        """Not-a-number is in no bounds."""
        return (value > self.least if self.above else value >= self.least) and value <= self.most

    def __str__(self) -> str:
        return f"above {self.least} and at most {self.most}" if self.above else f"{self.least} to {self.most}"

    def check(self, value: Number) -> Number:
        """`value`, as a validator of pydantic."""
        if value not in self:
            raise PydanticCustomError("out_of_bounds", "must be {bounds}", {"bounds": str(self)})
        return value


BOUNDS = {
    "max_tokens": Bounds(1, MAX_TOKENS),
    "temperature": Bounds(0, 5),
    "top_p": Bounds(0, 1, above=True),
    "top_k": Bounds(0, 1_000_000),
    "repetition_penalty": Bounds(0.01, 5),
    "seed": Bounds(0, 2**63 - 1),
    "presence_penalty": Bounds(-2, 2),
    "frequency_penalty": Bounds(-2, 2),
}

_Float = Annotated[float, Field(allow_inf_nan=True)]  # the bounds refuse infinity, in better words

Seed = Annotated[int, AfterValidator(BOUNDS["seed"].check)]
StopString = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARS)]


class SamplingNumbers(BaseModel):
    """What a request and a task file may both set; None where it is not set."""

    max_tokens: Annotated[int, AfterValidator(BOUNDS["max_tokens"].check)] | None = None
    temperature: Annotated[_Float, AfterValidator(BOUNDS["temperature"].check)] | None = None
    top_p: Annotated[_Float, AfterValidator(BOUNDS["top_p"].check)] | None = None
    top_k: Annotated[int, AfterValidator(BOUNDS["top_k"].check)] | None = None
    repetition_penalty: Annotated[_Float, AfterValidator(BOUNDS["repetition_penalty"].check)] | None = None
    presence_penalty: Annotated[_Float, AfterValidator(BOUNDS["presence_penalty"].check)] | None = None
    frequency_penalty: Annotated[_Float, AfterValidator(BOUNDS["frequency_penalty"].check)] | None = None


def check_sampling(sampling: Sampling | SamplingWish, *, max_tokens: int) -> None:
    """Raises InvalidRequest, which names the field out of bounds; `max_tokens` limits an answer."""
    for name, bounds in (BOUNDS | {"max_tokens": replace(BOUNDS["max_tokens"], most=max_tokens)}).items():
        value = getattr(sampling, name)
        if value is not None and value not in bounds:
            raise InvalidRequest(f"{name} must be {bounds}, not {value!r}", param=name)
    stop = sampling.stop or ()
    if len(stop) > MAX_STOPS or not all(1 <= len(each) <= MAX_STOP_CHARS for each in stop):
        raise InvalidRequest(
            f"stop must be at most {MAX_STOPS} strings of 1 to {MAX_STOP_CHARS} characters", param="stop"
        )
