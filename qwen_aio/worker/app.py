"""The HTTP face of one worker: routes, and one shape for every error. Receives finished objects and builds none.

In single mode the page is mounted on what `create_app` returns; the guard stands before it too.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Collection
from dataclasses import asdict, replace

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from qwen_aio.core import WorkerStatus
from qwen_aio.errors import MethodNotAllowed, QwenAioError, UnknownPath
from qwen_aio.wire.error import ErrorResponse, error_headers
from qwen_aio.wire.shape import JSON_MEDIA
from qwen_aio.wire.task import TasksResponse
from qwen_aio.worker.door import Door
from qwen_aio.worker.guard import Guard, error_response
from qwen_aio.worker.run_route import RunRoute
from qwen_aio.worker.service import ANSWER_TIMEOUT_S, DECISION_TIMEOUT_S
from qwen_aio.worker.sse import STREAM_TIMES, StreamTimes

READABLE = ("/v1/tasks", "/livez", "/readyz", "/health")
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"]


def create_app(
    door: Door,
    *,
    status: Callable[[], WorkerStatus],
    allowed_hosts: Collection[str] = (),
    page_csp: str = "default-src 'self'",
    times: StreamTimes = STREAM_TIMES,
) -> FastAPI:
    """The application. `status` gives the record that /health shows, as in status.json."""
    app = FastAPI(openapi_url=None, redirect_slashes=False)  # FastAPI's own pages load scripts from elsewhere
    about = AboutRoutes(door, status=status)
    app.router.routes += [
        Route("/v1/run", RunRoute(door, times=times), methods=["POST"]),
        Route("/v1/tasks", about.tasks),
        Route("/livez", about.livez),
        Route("/readyz", about.readyz),
        Route("/health", about.health),
        # A page mounted at / would otherwise answer for these.
        Route("/v1/run", _refuse_method("POST"), methods=METHODS),
        *(Route(path, _refuse_method("GET, HEAD"), methods=METHODS) for path in READABLE),
        Route("/v1/{rest:path}", _refuse_path, methods=METHODS),
    ]
    app.add_exception_handler(QwenAioError, _answer_error)
    app.add_exception_handler(HTTPException, _answer_http_exception)
    app.add_exception_handler(Exception, _answer_bug)
    app.add_middleware(Guard, allowed_hosts=allowed_hosts, page_csp=page_csp)
    return app


class AboutRoutes:
    """What can be read."""

    def __init__(self, door: Door, *, status: Callable[[], WorkerStatus]) -> None:
        self._door = door
        self._status = status

    async def tasks(self, _: Request) -> Response:
        """Tasks and limits."""
        service = self._door.service
        shape = TasksResponse.from_core(
            (await service.tasks()).values(),
            model=service.model,
            worker=service.worker,
            context=service.context,
            timeouts_s={"decision": DECISION_TIMEOUT_S, "generation": ANSWER_TIMEOUT_S},
        )
        return Response(shape.to_json(), media_type=JSON_MEDIA)

    async def livez(self, _: Request) -> Response:
        """200 for as long as the process can answer at all."""
        return _json({"status": "ok"})

    async def readyz(self, _: Request) -> Response:
        """200 if a request would be taken now, else 503 and why not."""
        if self._door.refusal is not None:
            raise self._door.refusal
        return _json({"status": "ready"})

    async def health(self, request: Request) -> Response:
        """The status of /readyz, with the worker's record."""
        record = asdict(replace(self._status(), state=self._door.state)) | {"in_flight": self._door.in_flight}
        refusal = self._door.refusal
        if refusal is None:
            return _json(record)
        error = ErrorResponse.from_core(refusal, request.state.request_id).model_dump()
        return _json(record | error, status=503, headers=error_headers(refusal))


def _refuse_method(allow: str) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint for the methods that a path does not have."""

    async def refuse(_: Request) -> Response:
        raise HTTPException(405, headers={"Allow": allow})

    return refuse


async def _refuse_path(_: Request) -> Response:
    raise HTTPException(404)


def _json(fields: dict[str, object], *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    content = json.dumps(fields, ensure_ascii=False, allow_nan=False)
    return Response(content, status, {"Cache-Control": "no-store"} | (headers or {}), media_type=JSON_MEDIA)


async def _answer_error(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, QwenAioError)
    return error_response(exc, request.state.request_id)


async def _answer_http_exception(request: Request, exc: Exception) -> Response:
    """What the router refuses."""
    assert isinstance(exc, HTTPException)
    error: QwenAioError = UnknownPath("nothing lives at this path; see /v1/run, /v1/tasks, /health")
    if exc.status_code == 405:
        allow = (exc.headers or {}).get("Allow", "")
        error = MethodNotAllowed(f"{request.method[:20]} is not possible here; allowed: {allow}")
    response = error_response(error, request.state.request_id)
    response.headers.update(exc.headers or {})
    return response


async def _answer_bug(request: Request, _: Exception) -> Response:
    """A bug of ours: the log has the traceback, the caller a sentence."""
    response = error_response(
        QwenAioError("an internal error; the server's log has the details"), request.state.request_id
    )
    response.headers["X-Request-ID"] = request.state.request_id  # the guard is inside of what calls this
    return response
