"""A JSON schema in a few words, for a cell of the page."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]
_LIMITS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "minLength": "{} or more characters",
    "maxLength": "up to {} characters",
    "minItems": "{} or more entries",
    "maxItems": "up to {} entries",
}


def kind_of(schema: Schema) -> str:
    """Type and limits, e.g. `integer, at least 1, at most 4096`; a shape by its name."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    limits = [words.format(f"{schema[name]:,.16g}") for name, words in _LIMITS.items() if name in schema]
    return ", ".join([_kind(schema), *limits])


def _kind(schema: Schema) -> str:
    if "const" in schema:
        return repr(schema["const"])
    if "enum" in schema:
        return " or ".join("null" if value is None else str(value) for value in schema["enum"])
    for several in ("anyOf", "oneOf"):
        if several in schema and "type" not in schema:
            return " or ".join(kind_of(kind) for kind in schema[several])
    match schema.get("type"):
        case "array":
            return f"list of {kind_of(schema.get('items', {}))}"
        case "object" if isinstance(schema.get("additionalProperties"), dict):
            return f"object of {kind_of(schema['additionalProperties'])}"
        case None:
            return "anything"
        case kind:
            return str(kind)
