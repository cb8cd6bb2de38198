"""How the fields of OpenAI's routes are read: checked, refused by name, or ignored as OpenAI does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, GetJsonSchemaHandler, field_validator, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from qwen_aio.bounds import MAX_STOPS, SamplingNumbers, Seed, StopString
from qwen_aio.core import Overflow, SamplingWish
from qwen_aio.errors import InvalidRequest
from qwen_aio.wire.shape import Strict

NULL = {"type": "null"}
Stops = Annotated[list[StopString], Field(max_length=MAX_STOPS)]
Harmless = Mapping[str, tuple[object, ...]]  # field that is not supported -> the values that change nothing


class OpenAiSent(Strict):
    """Null is the same as absent; unknown fields are ignored."""

    model_config = ConfigDict(extra="ignore")
    harmless: ClassVar[Harmless] = {}

    @model_validator(mode="before")
    @classmethod
    def _check_supported(cls, fields: Any) -> Any:
        if not isinstance(fields, dict):
            return fields
        present = {name: value for name, value in fields.items() if value is not None}
        check_harmless(present, cls.harmless)
        return present

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Null is a value of every optional field; fields that are not supported have those that change nothing."""
        written = handler(schema)
        shape = handler.resolve_ref_schema(written)
        fields = shape["properties"]
        for name in fields.keys() - set(shape.get("required", ())):
            kind = fields[name]
            words = {word: kind.pop(word) for word in ("title", "description", "default") if word in kind}
            kinds = [each for each in kind.get("anyOf", [kind]) if each != NULL]
            fields[name] = words | {"anyOf": [*kinds, NULL]}
        for name, values in cls.harmless.items():
            fields[name] = {"enum": [*values, None], "description": "Not supported: other values are refused."}
        return written


def check_harmless(fields: Mapping[str, Any], harmless: Harmless) -> None:
    """Raises InvalidRequest for a field that would change the output, and is not supported."""
    for name, values in harmless.items():
        if name in fields and not any(_are_equal(fields[name], value) for value in values):
            raise InvalidRequest(f"{name} is not supported by this server; leave it out", param=name)


def _are_equal(one: object, other: object) -> bool:
    """As in JSON, where 0 is not false."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


class StreamOptions(OpenAiSent):
    """`include_usage`: one more chunk tells the tokens."""

    include_usage: bool = False
    """One more chunk tells the tokens."""


class SamplingShape(OpenAiSent, SamplingNumbers):
    """What every request for text has; top_k and repetition_penalty are named as in vLLM."""

    harmless: ClassVar[Harmless] = {
        "n": (1,),
        "logit_bias": ({},),
        # of vLLM and llama.cpp
        "min_p": (0,),
        "min_tokens": (0,),
        "ignore_eos": (False,),
        "bad_words": ([],),
        "allowed_token_ids": (),
        "use_beam_search": (False,),
        "structured_outputs": (),
        "guided_json": (),
        "guided_regex": (),
        "guided_choice": (),
        "guided_grammar": (),
        "json_schema": (),
        "grammar": ("",),
    }

    model: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """The chat model (default), or a task as `qwen-aio/TASK`."""
    stop: Stops | None = None
    """The answer ends before any of these."""
    seed: Seed | None = None
    """The same seed, request and server give the same answer."""
    on_overflow: Overflow = "error"
    """Not OpenAI's: what happens to texts that do not fit the context."""
    stream: bool = False
    """Answer with server-sent events."""
    stream_options: StreamOptions | None = None
    """Of a stream alone."""

    @field_validator("stop", mode="before", json_schema_input_type=StopString | Stops)
    @classmethod
    def _list_stop(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @property
    def includes_usage(self) -> bool:
        """Whether a stream ends with the tokens."""
        return self.stream_options is not None and self.stream_options.include_usage

    def wish(self) -> SamplingWish:
        """The sampling that the client asks for."""
        numbers = {name: getattr(self, name) for name in SamplingNumbers.model_fields}
        return SamplingWish(**numbers, stop=None if self.stop is None else tuple(self.stop), seed=self.seed)
