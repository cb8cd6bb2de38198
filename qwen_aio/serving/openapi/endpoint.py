"""A route that says what it reads and answers, so that FastAPI can write its part of the document.

Requests pass none of FastAPI's machinery: bodies are read by wire/shape.py, more strictly than
FastAPI would, and only a handler that is an ASGI application sees that a client disconnects.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from inspect import Parameter, Signature
from typing import Any

from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from qwen_aio.errors import (
    AccessDenied,
    BodyTooLarge,
    BodyTooSlow,
    HeadersTooSlow,
    HostRefused,
    InvalidRequest,
    KeyRefused,
    OriginRefused,
    QwenAioError,
    RateLimited,
    TooManyConnections,
    UnsupportedMedia,
)
from qwen_aio.serving.access.rules import COMPUTING, rule_of
from qwen_aio.wire.error import ErrorResponse, http_status
from qwen_aio.wire.shape import JSON_MEDIA, SSE_MEDIA

Events = Sequence[tuple[str, type[Any]]]  # name and shape; OpenAI's have no name, and end with [DONE]
Handler = ASGIApp | Callable[[Request], Awaitable[Response]]
ErrorKinds = Collection[type[QwenAioError]]
REF = "#/components/schemas/{model}"
SECURITY = "key"  # the name of the bearer scheme
_TEXT_MEDIA = {str: "text/plain", None: SSE_MEDIA}
# What any request may get before its route: of the guard, the listener, or a bug.
_ANYWHERE: ErrorKinds = (InvalidRequest, HeadersTooSlow, BodyTooSlow, BodyTooLarge, UnsupportedMedia, QwenAioError)
_RETRY = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}}}
_LIMITS = {
    f"X-RateLimit-{word}-{what}": {"description": f"{meaning}; where there is a limit.", "schema": {"type": "string"}}
    for what in ("Requests", "Tokens")
    for word, meaning in {
        "Limit": f"{what} a minute",
        "Remaining": f"{what} that are left",
        "Reset": "When all are back, e.g. 12s",
    }.items()
}
_HEADERS = {
    401: {"WWW-Authenticate": {"description": "How to prove who one is.", "schema": {"type": "string"}}},
    429: _RETRY | _LIMITS,
    503: _RETRY,
}


class Endpoint(APIRoute):
    """One method of one path; HEAD comes with GET, and is not described."""

    def __init__(
        self,
        path: str,
        handler: Handler,
        *,
        method: str = "GET",
        name: str,
        tag: str,
        summary: str,
        description: str = "",
        reads: Any = None,
        answers: Any = str,
        adds: Mapping[str, Any] | None = None,
        events: Events = (),
        errors: ErrorKinds = (),
        parameters: Mapping[str, Any] | None = None,
        is_probe: bool = False,
    ) -> None:
        """`answers` is the shape of 200, str for plain text, None for a stream and nothing else.

        `adds` are fields of the answer that its shape does not have, as JSON schemas.
        `parameters` are annotated as FastAPI has them; `is_probe`: answers whatever the Host is.
        """
        self.rule = rule_of(path)
        self.events = events
        kinds = [*_ANYWHERE, *errors, *self._refusals(path, method, is_probe=is_probe)]
        responses: dict[int | str, dict[str, Any]] = {
            status: _error_response(status, kinds) for status in sorted({http_status(kind("")) for kind in kinds})
        }
        content = _content(answers, adds or {}, events)
        responses[200] = {"content": content, "headers": _LIMITS if path in COMPUTING else {}}
        is_text = answers in _TEXT_MEDIA
        super().__init__(
            path,
            _declared(path, parameters or {}, reads),
            methods=[method],
            operation_id=name,
            tags=[tag],
            summary=summary,
            description=description,
            response_model=None if is_text else answers,
            response_class=_Text if is_text else JSONResponse,
            response_description="The answer",
            responses=responses,
            openapi_extra={"security": [{SECURITY: []}]} if self.rule else {"security": []},
        )
        self.app = Route(path, handler).app
        self.head = Route(path, handler, methods=["HEAD"]) if method == "GET" else None

    def _refusals(self, path: str, method: str, *, is_probe: bool) -> Iterable[type[QwenAioError]]:
        """What the guard answers to requests of this route."""
        if self.rule is not None:
            yield KeyRefused
        if self.rule not in (None, "user"):
            yield AccessDenied
        if method != "GET":
            yield OriginRefused
        if path in COMPUTING:
            yield RateLimited
        if not is_probe:
            yield from (HostRefused, TooManyConnections)


class _Text(Response):
    """A reply whose medium is told apart: FastAPI would take it for that of errors, too."""

    media_type = None


def _declared(path: str, parameters: Mapping[str, Any], reads: Any) -> Callable[[], None]:
    """A function with the signature that FastAPI describes; nobody calls it. What is not in the path is optional."""

    def parameter(name: str, kind: Any, default: Any = Parameter.empty) -> Parameter:
        return Parameter(name, Parameter.KEYWORD_ONLY, annotation=kind, default=default)

    def declared() -> None: ...

    described = [
        parameter(name, kind) if f"{{{name}" in path else parameter(name, kind, None)
        for name, kind in parameters.items()
    ]
    body = [] if reads is None else [parameter("body", reads)]
    declared.__signature__ = Signature([*described, *body])  # type: ignore[attr-defined]
    return declared


def _content(answers: Any, adds: Mapping[str, Any], events: Events) -> dict[str, Any]:
    """What FastAPI does not know of the media of an answer."""
    content: dict[str, Any] = {}
    if adds:
        content[JSON_MEDIA] = {"schema": {"properties": dict(adds), "required": [*adds]}}
    if events:
        content[SSE_MEDIA] = {"itemSchema": _event_schema(events)}
    if answers in _TEXT_MEDIA:
        content[_TEXT_MEDIA[answers]] = {"schema": {"type": "string"}}
    return content


def _error_response(status: int, kinds: Iterable[type[QwenAioError]]) -> dict[str, Any]:
    """One line for each code that comes with `status`."""
    codes = {kind.code: kind for kind in kinds if http_status(kind("")) == status}
    lines = [f"- `{code}`: {_meaning(kind)}" for code, kind in sorted(codes.items())]
    return {"model": ErrorResponse, "description": "\n".join(lines), "headers": _HEADERS.get(status, {})}


def _meaning(kind: type[QwenAioError]) -> str:
    """The first line of the docstring; the base class stands for a bug."""
    return (kind.__doc__ or "").split("\n")[0] if kind is not QwenAioError else "A bug of the server; its log has it."


def _event_schema(events: Events) -> dict[str, Any]:
    """One event of a stream, as FastAPI describes those of its own routes."""
    is_named = all(name for name, _ in events)
    done = {"type": "object", "required": ["data"], "properties": {"data": {"const": "[DONE]"}}}
    return {"anyOf": [*(_one_event(*event) for event in events), *([] if is_named else [done])]}


def _one_event(name: str, shape: type[Any]) -> dict[str, Any]:
    content = {"$ref": REF.format(model=shape.__name__)}
    data = {"type": "string", "contentMediaType": "application/json", "contentSchema": content}
    properties = ({"event": {"const": name}} if name else {}) | {"data": data}
    return {"type": "object", "required": [*properties], "properties": properties}
