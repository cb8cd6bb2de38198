"""The kinds of shape: requests are read strictly, replies so that new fields do no harm.

Every mistake of a client becomes one sentence, which names the field and never echoes a text.
"""

from __future__ import annotations

import json
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, ValidationError, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from qwen_aio.errors import InvalidRequest

JSON_MEDIA = "application/json"
SSE_MEDIA = "text/event-stream"


class Strict(BaseModel):
    """No "10" for 10, no 1 for true, no infinity."""

    # The docstrings of fields describe them in the OpenAPI document.
    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)

    @classmethod
    def read(cls, body: bytes) -> Self:
        """The shape in the JSON object `body`. Raises InvalidRequest."""
        return cls.parse(read_object(body))

    @classmethod
    def parse(cls, fields: dict[str, Any]) -> Self:
        """Raises InvalidRequest with one sentence about the first mistake."""
        try:
            return cls.model_validate(fields)
        except ValidationError as exc:
            raise _invalid(cls, exc) from exc


class Sent(Strict):
    """Strict, and no unknown fields and no null."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _refuse_null(cls, fields: Any) -> Any:
        for name, value in fields.items() if isinstance(fields, dict) else ():
            if value is None:
                shown = json.dumps(name[:40])
                raise InvalidRequest(f"{shown} is null; leave it out to get the default", param=name[:40])
        return fields

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """The fields whose default is None cannot be null."""
        written = handler(schema)
        fields = handler.resolve_ref_schema(written)["properties"]
        for name, field in fields.items():
            kinds = [kind for kind in field.get("anyOf", ()) if kind != {"type": "null"}]
            if len(kinds) == 1:
                rest = {key: value for key, value in field.items() if key not in ("anyOf", "default")}
                fields[name] = kinds[0] | rest
        return written


class Answered(BaseModel):
    """Unknown fields are ignored: a client may be older than its server, and a noun has more."""

    model_config = ConfigDict(frozen=True)

    def to_json(self) -> bytes:
        """UTF-8, on one line."""
        return self.model_dump_json().encode()


def read_object(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`, read strictly. Raises InvalidRequest, echoing no text."""
    if not body:
        raise InvalidRequest("the body is empty; send a JSON object")
    try:
        text = body.decode("utf-8-sig")  # some clients on Windows put a byte-order mark first
        fields = json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)
        if "\\u" in text:
            json.dumps(fields, ensure_ascii=False).encode()  # fails for half a surrogate pair
    except UnicodeDecodeError as exc:
        raise InvalidRequest(f"the body is not UTF-8 (byte {exc.start})") from exc
    except UnicodeEncodeError as exc:
        raise InvalidRequest("the body holds half of a surrogate pair (\\ud800 to \\udfff), which is no text") from exc
    except RecursionError as exc:
        raise InvalidRequest("the body is nested too deeply") from exc
    except json.JSONDecodeError as exc:
        raise InvalidRequest(f"the body is not JSON: {exc.msg} (line {exc.lineno}, column {exc.colno})") from exc
    except ValueError as exc:  # an integer of thousands of digits
        raise InvalidRequest("the body holds a number that is too long") from exc
    if not isinstance(fields, dict):
        raise InvalidRequest(f"the body must be a JSON object, not {_KINDS[type(fields)]}")
    return fields


_KINDS = {
    list: "a list",
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in pairs:
        if name in fields:
            raise InvalidRequest(f"{_shown(name)} is given twice")
        fields[name] = value
    return fields


def _refuse_constant(name: str) -> None:
    raise InvalidRequest(f"{name} is not a JSON number")


def _invalid(shape: type[Strict], exc: ValidationError) -> InvalidRequest:
    first = exc.errors(include_url=False, include_context=False)[0]
    param = ".".join(str(part)[:40] for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = f"; known: {', '.join(shape.model_fields)}" if len(first["loc"]) == 1 else ""
        return InvalidRequest(f"unknown field {_shown(first['loc'][-1])}{known}", param=param)
    message = first["msg"][0].lower() + first["msg"][1:]
    return InvalidRequest(f"{param}: {message}, not {_shown(first['input'])}", param=param)


def _shown(value: Any) -> str:
    """`value` for a sentence: a short scalar as JSON, else its kind and size."""
    if isinstance(value, dict | list):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    written = json.dumps(value)
    return written if len(written) <= 60 else f"{_KINDS[type(value)]} of {len(written)} characters"
