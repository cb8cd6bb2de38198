"""`POST /internal/call`: one call of the engine for a balancer, always as a stream of events."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing

from starlette.requests import Request as HttpRequest
from starlette.types import Receive, Scope, Send

from qwen_aio.serving.admission import AdmissionGate
from qwen_aio.serving.deadline import within
from qwen_aio.serving.disconnect import ClientDisconnected, while_connected
from qwen_aio.serving.pipeline import ANSWER_TIMEOUT_S, Executor
from qwen_aio.serving.sse import StreamTimes, send_events
from qwen_aio.wire.engine import EngineRequestShape, engine_frame


class EngineRoute:
    """An ASGI application of its own: only at this level is it seen when a caller hangs up."""

    def __init__(self, door: AdmissionGate, calls: Callable[[], Executor], *, times: StreamTimes) -> None:
        """`calls` are asked for only once the door is open."""
        self._door = door
        self._calls = calls
        self._times = times

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises QwenAioError while no status has been sent."""
        if self._door.refusal is not None:
            raise self._door.refusal
        body = await HttpRequest(scope, receive).body()
        call = EngineRequestShape.read(body).to_core(scope["state"]["request_id"])
        limit_s = call.timeout_s or ANSWER_TIMEOUT_S  # a balancer that has gone astray must not keep a slot for ever
        async with aclosing(self._door.through(lambda: within(self._calls().make(call), limit_s))) as events:
            sending = send_events(events, send, frame=engine_frame, request_id=call.request_id, times=self._times)
            try:
                await while_connected(receive, sending)
            except ClientDisconnected:
                return
