"""The JSON schemas that are compiled: a part of the language, with bounded numbers. All else is refused by name.

Schemas come from clients, and llguidance 1.9.1 ends the process at some that it does not expect (a range of
integers from -2**63), so only what is listed here reaches it. Knows neither llguidance nor tokens.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from qwen_aio.errors import InvalidRequest

MAX_DEPTH = 32
MAX_NUMBER = 1e9  # of any number, up or down
MIN_NUMBER = 1e-9  # closer to zero there is only zero
MAX_COUNT = 4096  # letters or items: no answer has more tokens
TYPES = ("string", "integer", "number", "boolean", "null", "array", "object")
FORMATS = ("date", "time", "date-time", "uuid", "email")
ANNOTATIONS = ("title", "description", "default", "examples", "$schema")  # they say nothing about the answer


def read_schema(written: str) -> dict[str, Any]:
    """The schema in `written`, without annotations. Raises InvalidRequest."""
    try:
        schema = json.loads(written)
    except (ValueError, RecursionError) as exc:
        raise refused_schema("it is not JSON, or nested too deeply") from exc
    return _read(schema, depth=0)


def refused_schema(problem: str) -> InvalidRequest:
    """The error for a client; `problem` is a part of a sentence."""
    return InvalidRequest(f"no answer can be made by this JSON schema: {problem}", param="json_schema")


def _read(schema: object, *, depth: int) -> dict[str, Any]:
    if not isinstance(schema, dict):
        raise refused_schema("it is, or holds in the place of a schema, something other than an object")
    if depth > MAX_DEPTH:
        raise refused_schema(f"it is nested more than {MAX_DEPTH} deep")
    return {
        name: _read_keyword(name, value, depth=depth + 1) for name, value in schema.items() if name not in ANNOTATIONS
    }


def _read_keyword(name: str, value: Any, *, depth: int) -> object:
    """`value`, read as that of the keyword `name`."""
    match name:
        case "properties" | "$defs" if isinstance(value, dict):
            return {key: _read(each, depth=depth) for key, each in value.items()}
        case "anyOf" | "prefixItems" if isinstance(value, list):
            return [_read(each, depth=depth) for each in value]
        case "items" | "additionalProperties":
            return value if isinstance(value, bool) else _read(value, depth=depth)
        case _ if name in _VALUES and _VALUES[name](value):
            return value
    known = "" if name in KEYWORDS else f"; known: {', '.join(KEYWORDS)}"
    raise refused_schema(f"{json.dumps(name[:40])} is not supported{known or ' with this value'}")


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and (value == 0 or MIN_NUMBER <= abs(value) <= MAX_NUMBER)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_COUNT


def _is_constant(value: Any) -> bool:
    return value is None or isinstance(value, str | bool) or _is_number(value)


def _is_type(value: Any) -> bool:
    return value in TYPES if isinstance(value, str) else _is_list(value, lambda each: each in TYPES)


def _is_list(value: Any, is_item: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and bool(value) and all(map(is_item, value))


_VALUES: dict[str, Callable[[Any], bool]] = {
    "type": _is_type,
    "enum": lambda value: _is_list(value, _is_constant),
    "const": _is_constant,
    "required": lambda value: value == [] or _is_list(value, lambda each: isinstance(each, str)),
    "format": lambda value: value in FORMATS,
    "$ref": lambda value: isinstance(value, str) and value.startswith("#/$defs/"),
    **dict.fromkeys(("minItems", "maxItems", "minLength", "maxLength"), _is_count),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), _is_number),
}
KEYWORDS = ("properties", "$defs", "anyOf", "prefixItems", "items", "additionalProperties", *_VALUES)
