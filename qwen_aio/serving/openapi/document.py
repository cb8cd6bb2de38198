"""The OpenAPI document of an application: FastAPI's, with what it leaves out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema
from starlette.routing import BaseRoute

from qwen_aio import __version__
from qwen_aio.serving.openapi.endpoint import REF, SECURITY, Endpoint
from qwen_aio.serving.openapi.words import words_of_fields

_REQUEST_ID = {
    "description": "The client's own, if it sent one of 1 to 64 letters, digits, dots, dashes and underscores.",
    "schema": {"type": "string"},
}
_BEARER = {
    "type": "http",
    "scheme": "bearer",
    "description": "A key of `qwen-aio keys add NAME`; not needed while the server has none. A browser that has "
    "signed in at `/login` sends a cookie instead.",
}
_OF_FASTAPI = ("HTTPValidationError", "ValidationError")  # mistakes are told as ErrorResponse instead

Document = dict[str, Any]


def document(routes: Sequence[BaseRoute], *, title: str, description: str) -> Document:
    """The document of all endpoints among `routes`."""
    endpoints = [route for route in routes if isinstance(route, Endpoint)]
    written: Document = get_openapi(title=title, version=__version__, description=description, routes=endpoints)
    schemas = written["components"]["schemas"]
    for name in _OF_FASTAPI:
        schemas.pop(name, None)
    written["components"]["schemas"] = _with_words(dict(sorted((_event_shapes(endpoints) | schemas).items())))
    written["components"]["securitySchemes"] = {SECURITY: _BEARER}
    for path in written["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
            for response in operation["responses"].values():
                response.setdefault("headers", {})["X-Request-ID"] = _REQUEST_ID
    return written


def _event_shapes(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """The shapes of events, which FastAPI knows only of its own routes."""
    shapes = {shape for endpoint in endpoints for _, shape in endpoint.events}
    _, definitions = models_json_schema([(shape, "serialization") for shape in shapes], ref_template=REF)
    return dict(definitions.get("$defs", {}))


def _with_words(schemas: dict[str, Any]) -> dict[str, Any]:
    for name, words in words_of_fields(schemas).items():
        for field, text in words.items():
            schemas[name].get("properties", {}).get(field, {}).setdefault("description", text)
    return schemas


def to_text(written: Document) -> str:
    """As the stored copies have it: one field a line, so that a change is seen."""
    return json.dumps(written, ensure_ascii=False, indent=1) + "\n"
