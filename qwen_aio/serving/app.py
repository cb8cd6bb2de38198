"""The application of a server: routes, and one shape for every error.

Receives finished objects and builds none. In single mode the page is mounted on the application
that `create_app` returns; the guard covers it too.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence

from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from qwen_aio.core import TaskKind
from qwen_aio.errors import MethodNotAllowed, QwenAioError, UnknownPath
from qwen_aio.serving.access.key_ring import KeyRing
from qwen_aio.serving.access.limits import NO_LIMITS, RateLimits
from qwen_aio.serving.access.rules import LOGIN_PATH, LOGOUT_PATH, Access
from qwen_aio.serving.admission import AdmissionGate
from qwen_aio.serving.guard import Guard, Worded, as_json, error_response
from qwen_aio.serving.health_routes import Health, health_endpoints
from qwen_aio.serving.login import LoginRoutes, with_pages
from qwen_aio.serving.openai_routes import openai_routes
from qwen_aio.serving.openapi.docs import ProgramInfo, describing_routes
from qwen_aio.serving.openapi.endpoint import Endpoint, ErrorKinds
from qwen_aio.serving.openapi.work_errors import CLOSED
from qwen_aio.serving.pipeline import ANSWER_TIMEOUT_S, DECISION_TIMEOUT_S
from qwen_aio.serving.run_route import run_endpoint
from qwen_aio.serving.sse import BUG, STREAM_TIMES, StreamTimes
from qwen_aio.serving.tokenize_route import tokenize_endpoint
from qwen_aio.serving.transport.proxied import Proxied, ProxySettings
from qwen_aio.serving.transport.target import OriginForm
from qwen_aio.wire.shape import JSON_MEDIA
from qwen_aio.wire.task import TasksResponse

DIRECT = ProxySettings()  # no proxy before it
NO_KEYS = KeyRing(None)  # open to everybody
NO_TELEMETRY: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"]


def create_app(
    gate: AdmissionGate,
    *,
    routes: Sequence[Route],
    health: Callable[[], Health],
    keys: KeyRing = NO_KEYS,
    limits: RateLimits = NO_LIMITS,
    allowed_hosts: Collection[str] = (),
    proxy: ProxySettings = DIRECT,
    page_csp: str = "default-src 'self'",
    worded: Worded = as_json,
    info: ProgramInfo | None = None,
) -> FastAPI:
    """The application: `routes`, the health routes of every server, and those for signing in.

    `info` of it: with this it describes itself at /openapi.json and /docs.
    """
    # FastAPI's own pages load scripts from elsewhere, and by a variable of the environment it would send measurements.
    app = FastAPI(openapi_url=None, redirect_slashes=False, telemetry=NO_TELEMETRY)
    access = Access(keys)
    login = LoginRoutes(access)
    described = [*routes, *health_endpoints(gate, health=health, shape=info.health if info else dict[str, object])]
    known = [
        *described,
        *(describing_routes(described, info) if info else ()),
        Route(LOGIN_PATH, login.login, methods=["GET", "POST"]),
        Route(LOGOUT_PATH, login.logout, methods=["POST"]),
    ]
    app.router.routes += [
        *known,
        *(route.head for route in described if isinstance(route, Endpoint) and route.head),
        # Otherwise a page mounted at / answers these.
        *(Route(route.path, _refuse_method(route), methods=METHODS) for route in known),
        Route("/v1/{rest:path}", _refuse_path, methods=METHODS),
    ]
    app.add_exception_handler(QwenAioError, _answer_error)
    app.add_exception_handler(HTTPException, _answer_http_exception)
    app.add_exception_handler(Exception, _answer_bug)
    app.add_middleware(
        Guard,
        allowed_hosts=allowed_hosts,
        access=access,
        limits=limits,
        page_csp=page_csp,
        worded=with_pages(worded),
    )
    app.add_middleware(Proxied, proxy=proxy)
    app.add_middleware(OriginForm)  # the last one added comes first
    return app


def v1_routes(
    gate: AdmissionGate,
    *,
    times: StreamTimes = STREAM_TIMES,
    allow_system_messages: bool = False,
    also: ErrorKinds = (),
) -> list[Endpoint]:
    """The public routes of a worker and of a balancer; `also`: errors that only one of them has."""

    async def tasks(_: Request) -> Response:
        timeouts_s: dict[TaskKind, float] = {"decision": DECISION_TIMEOUT_S, "generation": ANSWER_TIMEOUT_S}
        shape = TasksResponse.from_core(await gate.capabilities(), timeouts_s=timeouts_s)
        return Response(shape.to_json(), media_type=JSON_MEDIA)

    return [
        run_endpoint(gate, times=times, also=also),
        Endpoint(
            "/v1/tasks",
            tasks,
            name="tasks",
            tag="Tasks",
            summary="List the tasks and the limits of requests",
            answers=TasksResponse,
            errors=(*CLOSED, *also),
        ),
        tokenize_endpoint(gate, allow_system_messages=allow_system_messages, also=also),
        *openai_routes(gate, times=times, allow_system_messages=allow_system_messages, also=also),
    ]


def _refuse_method(route: Route) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint for the methods that `route` does not support."""
    methods = (route.methods or set(METHODS)) | ({"HEAD"} if isinstance(route, Endpoint) and route.head else set())
    allow = ", ".join(sorted(methods))

    async def refuse(_: Request) -> Response:
        raise HTTPException(405, headers={"Allow": allow})

    return refuse


async def _refuse_path(_: Request) -> Response:
    raise HTTPException(404)


async def _answer_error(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, QwenAioError)
    request.state.code = exc.code
    return error_response(exc, request.state.request_id)


async def _answer_http_exception(request: Request, exc: Exception) -> Response:
    """The answer to a path or a method that the router does not know."""
    assert isinstance(exc, HTTPException)
    error: QwenAioError = UnknownPath("nothing lives at this path; see /v1/run, /v1/tasks, /v1/models, /health")
    if exc.status_code == 405:
        allow = (exc.headers or {}).get("Allow", "")
        error = MethodNotAllowed(f"{request.method[:20]} is not possible here; allowed: {allow}")
    request.state.code = error.code
    response = error_response(error, request.state.request_id)
    response.headers.update(exc.headers or {})
    return response


async def _answer_bug(request: Request, _: Exception) -> Response:
    """The answer when a bug ends a request: the log has the traceback, the client a sentence."""
    response = error_response(QwenAioError(BUG), request.state.request_id)
    response.headers["X-Request-ID"] = request.state.request_id  # this runs outside of the guard
    return response
