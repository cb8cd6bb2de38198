"""`POST /internal/call`: one engine request of a balancer, answered as a stream of events; and its tokens."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator

from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from qwen_aio.core import EngineRequest
from qwen_aio.result import EngineEvent
from qwen_aio.serving.admission import AdmissionGate
from qwen_aio.serving.deadline import Deadline
from qwen_aio.serving.pipeline import ANSWER_TIMEOUT_S, Pipeline
from qwen_aio.serving.sse import StreamTimes, send_events
from qwen_aio.wire.engine import EngineRequestShape, TokensResponse, engine_frame
from qwen_aio.wire.shape import JSON_MEDIA

logger = logging.getLogger(__name__)


class EngineRoute:
    """An ASGI application of its own: only at this level does it see that a client disconnects."""

    def __init__(self, gate: AdmissionGate, *, times: StreamTimes) -> None:
        """`gate` opens with a Pipeline."""
        self._gate = gate
        self._times = times

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises QwenAioError while no status has been sent."""
        if self._gate.refusal is not None:
            raise self._gate.refusal
        body = await HttpRequest(scope, receive).body()
        state = scope["state"]
        request = EngineRequestShape.read(body).to_core(state["request_id"], state["traceparent"])
        deadline = Deadline(request.timeout_s or ANSWER_TIMEOUT_S)  # a stray balancer must not keep a slot for ever
        events = self._gate.through(lambda: self._execute(request), deadline)
        await send_events(events, scope, receive, send, frame=engine_frame, times=self._times)

    def _execute(self, request: EngineRequest) -> AsyncGenerator[EngineEvent, None]:
        pipeline = self._gate.service
        assert isinstance(pipeline, Pipeline)
        events = pipeline.executor.execute(request)
        # The balancer logs the end of the whole request; this line says which worker had a part in it.
        line = "engine request id=%s task=%s traceparent=%s"
        logger.info(line, request.request_id, request.task, request.traceparent or "-")
        return events


class TokensRoute:
    """`POST /internal/tokens`. Computes nothing."""

    def __init__(self, gate: AdmissionGate) -> None:
        """`gate` opens with a Pipeline."""
        self._gate = gate

    async def tokens(self, http_request: HttpRequest) -> Response:
        """Raises QwenAioError."""
        if self._gate.refusal is not None:
            raise self._gate.refusal
        request = EngineRequestShape.read(await http_request.body()).to_core(http_request.scope["state"]["request_id"])
        pipeline = self._gate.service
        assert isinstance(pipeline, Pipeline)
        shape = TokensResponse(tokens=await pipeline.executor.tokenize(request))
        return Response(shape.to_json(), media_type=JSON_MEDIA)
