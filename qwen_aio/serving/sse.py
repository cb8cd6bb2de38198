"""Events -> one HTTP response of server-sent events.

A silent stream sends comments, so that a dead connection is noticed. A client that reads nothing
for half a minute is disconnected: never more than the socket's buffer waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from qwen_aio.errors import QwenAioError
from qwen_aio.serving.disconnect import while_connected
from qwen_aio.serving.interruption import cancel
from qwen_aio.wire.event import KEEP_ALIVE, error_frame
from qwen_aio.wire.shape import SSE_MEDIA

_HEADERS = [
    (b"content-type", f"{SSE_MEDIA}; charset=utf-8".encode()),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx would hold the tokens back
]

BUG = "an internal error; the server's log has the details"

T = TypeVar("T")
ErrorFrame = Callable[[QwenAioError, str], bytes]  # of an error and the request's id
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StreamTimes:
    """Seconds until a silent stream sends a comment, or drops a client that does not read."""

    keep_alive_s: float = 15.0
    patience_s: float = 30.0


STREAM_TIMES = StreamTimes()


async def send_events(
    events: AsyncGenerator[T, None],
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    frame: Callable[[T], bytes],
    times: StreamTimes,
    failed: ErrorFrame = error_frame,
) -> None:
    """Send `events`, each as its `frame`, to their end or the client's disconnect; close them.

    Raises an error before the first event, which can still have a status, and ClientDisconnect. A later error, or
    a bug, becomes the last event, by `failed`.
    """
    request_id = scope["state"]["request_id"]
    sending = _send_all(events, send, frame=frame, times=times, failed=failed, request_id=request_id)
    async with aclosing(events):
        await while_connected(receive, sending)


async def _send_all(
    events: AsyncGenerator[T, None],
    send: Send,
    *,
    frame: Callable[[T], bytes],
    times: StreamTimes,
    failed: ErrorFrame,
    request_id: str,
) -> None:
    event: T | None = await anext(events)
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    try:
        while event is not None:
            await _send(send, frame(event), times)
            event = await _next(events, send, times)
    except QwenAioError as exc:
        logger.info("stream ended early id=%s code=%s", request_id, exc.code)
        await _send(send, failed(exc, request_id), times)
    except ClientDisconnect:
        raise
    except Exception:
        logger.exception("a bug has ended a stream id=%s", request_id)
        await _send(send, failed(QwenAioError(BUG), request_id), times)
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _next(events: AsyncGenerator[T, None], send: Send, times: StreamTimes) -> T | None:
    """The next event, None at the end; sends comments while it waits."""
    following = asyncio.ensure_future(anext(events, None))
    try:
        while not (await asyncio.wait({following}, timeout=times.keep_alive_s))[0]:
            await _send(send, KEEP_ALIVE, times)
        return following.result()
    finally:
        await cancel(following)


async def _send(send: Send, frame: bytes, times: StreamTimes) -> None:
    try:
        async with asyncio.timeout(times.patience_s):
            await send({"type": "http.response.body", "body": frame, "more_body": True})
    except TimeoutError as exc:
        raise ClientDisconnect from exc
