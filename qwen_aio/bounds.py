"""Bounds of the fields of `Sampling`, stated once for requests, task files and the engine.

Wire and task files use the types, so that the error for a number out of range names its field or
its line; code that gets a request another way calls `check_sampling`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from qwen_aio.core import Sampling, SamplingWish
from qwen_aio.errors import InvalidRequest

Number = TypeVar("Number", int, float)

MAX_TOKENS = 4096  # of an answer, however large the context is
MAX_STOPS = 8  # stop strings
MAX_STOP_CHARS = 64  # of each; text waits in the engine while it might become one
MAX_SCHEMA_CHARS = 20_000  # of a JSON schema, written as JSON
MAX_TIMEOUT_S = 600.0  # of a request
MAX_TOP_LOGPROBS = 20  # likely tokens listed beside each sampled one


@dataclass(frozen=True)
class Bounds:
    """All numbers from `least` to `most`; `above` excludes `least` itself. Annotates fields of pydantic."""

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

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(schema) | {"exclusiveMinimum" if self.above else "minimum": self.least, "maximum": self.most}


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

Seed = Annotated[int, BOUNDS["seed"]]
StopString = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARS)]


class SamplingNumbers(BaseModel):
    """What a request and a task file may both set; None where it is not set."""

    max_tokens: Annotated[int, BOUNDS["max_tokens"]] | None = None
    """Longest answer in tokens; default: the task's."""
    temperature: Annotated[_Float, BOUNDS["temperature"]] | None = None
    """0 always takes the most likely token; default: the task's."""
    top_p: Annotated[_Float, BOUNDS["top_p"]] | None = None
    """Sample among the most likely tokens that together reach this probability; 1: among all."""
    top_k: Annotated[int, BOUNDS["top_k"]] | None = None
    """Sample among this many of the most likely tokens; 0: among all."""
    repetition_penalty: Annotated[_Float, BOUNDS["repetition_penalty"]] | None = None
    """Makes tokens of prompt and answer less likely; 1: off."""
    presence_penalty: Annotated[_Float, BOUNDS["presence_penalty"]] | None = None
    """OpenAI's: makes tokens that the answer has less likely."""
    frequency_penalty: Annotated[_Float, BOUNDS["frequency_penalty"]] | None = None
    """OpenAI's: makes tokens less likely by how often the answer has them."""


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
