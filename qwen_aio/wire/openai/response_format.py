"""`response_format` of a chat: text, any JSON object, or JSON by a schema."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Field

from qwen_aio.bounds import MAX_SCHEMA_CHARS
from qwen_aio.errors import InvalidRequest
from qwen_aio.wire.openai.fields import OpenAiSent

ANY_OBJECT = '{"type": "object"}'
WHERE = "response_format.json_schema"


class JsonSchema(OpenAiSent):
    """A named schema; it is always kept to, so `strict` changes nothing."""

    name: Annotated[str, Field(max_length=64)] | None = None
    """For people."""
    content: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    """The schema; docs/openai.md says which keywords are understood."""


class ResponseFormat(OpenAiSent):
    """`json_schema` belongs to the type of that name."""

    type: Literal["text", "json_object", "json_schema"]
    """What the answer is."""
    json_schema: JsonSchema | None = None
    """With the type of that name."""

    def schema_text(self) -> str | None:
        """The schema that the answer keeps to, as JSON; None for text. Raises InvalidRequest."""
        match self.type:
            case "text":
                return None
            case "json_object":
                return ANY_OBJECT
            case "json_schema":
                return _written(self.json_schema.content if self.json_schema else None)


def _written(schema: dict[str, Any] | None) -> str:
    if schema is None:
        raise InvalidRequest(f"{WHERE}.schema must be an object", param=f"{WHERE}.schema")
    try:
        written = json.dumps(schema, ensure_ascii=False)
    except RecursionError as exc:
        raise InvalidRequest(f"{WHERE}.schema is nested too deeply", param=f"{WHERE}.schema") from exc
    if len(written) > MAX_SCHEMA_CHARS:
        problem = f"{WHERE}.schema has {len(written)} characters; at most {MAX_SCHEMA_CHARS} are read"
        raise InvalidRequest(problem, param=f"{WHERE}.schema")
    return written
