"""The dashboard over HTTP: page, snapshot, history, stream of news, buttons.

Knows of the balancer only what DashboardView says.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from functools import partial
from typing import Annotated, Protocol

from fastapi import Path, Query
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from qwen_aio.balancer.dashboard.files import Files
from qwen_aio.balancer.dashboard.frames import frames, to_json
from qwen_aio.balancer.dashboard.page import Page
from qwen_aio.balancer.dashboard.strings import STRINGS, DashboardStrings
from qwen_aio.balancer.snapshot import AdminState, Snapshot
from qwen_aio.balancer.stats import News, Stats, StatsHistory
from qwen_aio.errors import Draining, LastWorker, StatusUnwritable, UnknownWorker
from qwen_aio.language import Language, language_for
from qwen_aio.serving.openapi.endpoint import Endpoint
from qwen_aio.serving.sse import STREAM_TIMES, StreamTimes, send_events
from qwen_aio.wire.admin import AdminRequest
from qwen_aio.wire.shape import JSON_MEDIA, SSE_MEDIA

TAG = "Workers"
FRESH = {"Cache-Control": "no-store"}


class DashboardView(Protocol):
    """What the dashboard needs of a balancer."""

    @property
    def stats(self) -> Stats:
        """Requests, events and charts; closing it ends all streams."""

    def snapshot(self) -> Snapshot:
        """The whole service at this moment."""

    def set_admin(self, worker_id: str, state: AdminState, *, force: bool) -> None:
        """Set what an operator wants. Raises UnknownWorker, LastWorker, StatusUnwritable."""


def dashboard_routes(view: DashboardView, *, times: StreamTimes = STREAM_TIMES) -> list[Route]:
    """All routes of the dashboard; its files are read now."""
    routes = DashboardRoutes(view)
    return [
        Route("/", routes.page),
        Route("/static/{name}", Files().get),
        Endpoint("/status", routes.status, name="status", tag=TAG, summary="The service as it is", answers=Snapshot),
        Endpoint(
            "/history",
            routes.history,
            name="history",
            tag=TAG,
            summary="Charts, requests and events of the last time",
            answers=StatsHistory,
        ),
        Endpoint(
            "/events",
            EventsRoute(view.stats, times=times),
            name="events",
            tag=TAG,
            summary="The stream that the dashboard follows",
            description="Server-sent events `history`, `snapshot`, `request`, `event` and `sample`, until the client "
            "disconnects. Their rows are the texts of the dashboard's cells, and may change with it: programs read "
            "`/status` and `/history`.",
            answers=None,
            errors=(Draining,),
            parameters={"lang": Annotated[Language, Query(description="Of the texts; default: the browser's.")]},
        ),
        Endpoint(
            "/admin/workers/{id}",
            routes.set_admin,
            method="POST",
            name="set_admin",
            tag=TAG,
            summary="Take a worker out of service, or back",
            description="The answer is the service after the change.",
            reads=AdminRequest,
            answers=Snapshot,
            errors=(UnknownWorker, LastWorker, StatusUnwritable),
            parameters={"id": Annotated[str, Path(description="The worker's.", examples=["qwen-1"])]},
        ),
    ]


class DashboardRoutes:
    """All but the stream."""

    def __init__(self, view: DashboardView) -> None:
        self._view = view
        self._page = Page()

    async def page(self, request: Request) -> Response:
        """The first paint."""
        key = request.state.key.name if request.state.key else ""
        html = self._page.render(self._view.snapshot(), self._view.stats.history(), _strings_for(request), key=key)
        return HTMLResponse(html, headers=FRESH | {"Vary": "Accept-Language"})

    async def status(self, _: Request) -> Response:
        """The service as it is, as JSON."""
        return _answer(self._view.snapshot())

    async def history(self, _: Request) -> Response:
        """Charts, requests and events of the last time, as JSON."""
        return _answer(self._view.stats.history())

    async def set_admin(self, request: Request) -> Response:
        """The service after the change. Raises InvalidRequest and all that set_admin raises."""
        wanted = AdminRequest.read(await request.body())
        self._view.set_admin(request.path_params["id"], wanted.state, force=wanted.force)
        return _answer(self._view.snapshot())


class EventsRoute:
    """`GET /events`. An ASGI application of its own, since only there a disconnect is seen."""

    def __init__(self, stats: Stats, *, times: StreamTimes) -> None:
        self._stats = stats
        self._times = times

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the history, then news until the client disconnects."""
        if scope["method"] == "HEAD":
            await Response(media_type=SSE_MEDIA, headers=FRESH)(scope, receive, send)
            return
        frame = partial(frames, strings=_strings_for(Request(scope)))
        events = _while_admitted(self._stats.listen(), scope["state"]["is_admitted"])
        with suppress(ClientDisconnect):  # the usual end
            await send_events(events, scope, receive, send, frame=frame, times=self._times)


async def _while_admitted(
    events: AsyncGenerator[tuple[News, ...], None], is_admitted: Callable[[], bool]
) -> AsyncGenerator[tuple[News, ...], None]:
    """`events`, until the visitor's key or session ends: this stream would outlive them."""
    async with aclosing(events):
        async for batch in events:
            yield batch
            if not is_admitted():
                return


def _strings_for(request: Request) -> DashboardStrings:
    """The words of the language of `?lang=`, or else of the browser."""
    accepted = request.headers.get("accept-language", "")
    return STRINGS[language_for(accepted, wanted=request.query_params.get("lang", ""))]


def _answer(news: News) -> Response:
    return Response(to_json(news), headers=FRESH, media_type=JSON_MEDIA)
