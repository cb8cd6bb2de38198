"""`POST /v1/run`: read, run while the client is connected, answer as JSON or as a stream of events.

Knows the gate and the shapes, no service.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Header
from starlette.datastructures import Headers
from starlette.requests import Request as HttpRequest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from qwen_aio.bounds import MAX_TIMEOUT_S
from qwen_aio.core import Request
from qwen_aio.errors import InvalidRequest, UnknownTask
from qwen_aio.result import Result
from qwen_aio.serving.admission import AdmissionGate
from qwen_aio.serving.disconnect import while_connected
from qwen_aio.serving.meter import count, counted
from qwen_aio.serving.openapi.endpoint import Endpoint, ErrorKinds
from qwen_aio.serving.openapi.work_errors import WORK_ERRORS
from qwen_aio.serving.pipeline import ANSWER_TIMEOUT_S
from qwen_aio.serving.sse import StreamTimes, send_events
from qwen_aio.wire.error import ErrorResponse
from qwen_aio.wire.event import DoneShape, ExplanationShape, TokenShape, event_frame
from qwen_aio.wire.request import RunRequest
from qwen_aio.wire.result import DecisionShape, RunListResponse, RunResponse, RunTasksResponse
from qwen_aio.wire.shape import JSON_MEDIA, Answered, read_object

TIMEOUT_HEADER = Header(gt=0, le=MAX_TIMEOUT_S, description="Seconds; as `timeout_s`, which wins.")


def run_endpoint(gate: AdmissionGate, *, times: StreamTimes, also: ErrorKinds) -> Endpoint:
    """`also`: errors besides those of every server."""
    return Endpoint(
        "/v1/run",
        RunRoute(gate, times=times),
        method="POST",
        name="run",
        tag="Tasks",
        summary="Run a task on a text: decide, answer, or both",
        description="`text` is one text, `texts` are many, `tasks` are several tasks about one text, each with its own "
        "result or error. With `stream` the answer is server-sent events: `decision` if one was asked for, `token`s of "
        "the answer, `explanation` if one was asked for, and in the end `done` or `error`.",
        reads=RunRequest,
        answers=RunResponse | RunListResponse | RunTasksResponse,
        events=[
            ("decision", DecisionShape),
            ("token", TokenShape),
            ("explanation", ExplanationShape),
            ("done", DoneShape),
            ("error", ErrorResponse),
        ],
        errors=(*WORK_ERRORS, UnknownTask, *also),
        parameters={"x_request_timeout": Annotated[float, TIMEOUT_HEADER]},
    )


class RunRoute:
    """An ASGI application of its own: only at this level does it see that a client disconnects."""

    def __init__(self, gate: AdmissionGate, *, times: StreamTimes) -> None:
        self._gate = gate
        self._times = times

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises QwenAioError while no status has been sent."""
        if self._gate.refusal is not None:
            raise self._gate.refusal
        body = await HttpRequest(scope, receive).body()
        wanted = RunRequest.parse(_with_timeout(read_object(body), Headers(scope=scope)))
        requests = wanted.to_core(scope["state"]["request_id"], scope["state"]["traceparent"])
        if wanted.stream:
            events = self._gate.stream(requests[0])
            await send_events(events, scope, receive, send, frame=counted(scope, event_frame), times=self._times)
            return
        answer = await while_connected(receive, self._run(scope, wanted, requests))
        headers = {"Cache-Control": "no-store"}
        await Response(answer.to_json(), headers=headers, media_type=JSON_MEDIA)(scope, receive, send)

    async def _run(self, scope: Scope, wanted: RunRequest, requests: tuple[Request, ...]) -> Answered:
        """All texts, or tasks, have one deadline."""
        timeout_s = wanted.timeout_s or ANSWER_TIMEOUT_S
        if wanted.tasks:
            outcomes = await self._gate.run_each(requests, timeout_s=timeout_s)
            count(scope, *(outcome for outcome in outcomes if isinstance(outcome, Result)))
            by_task = dict(zip(wanted.tasks, outcomes, strict=True))
            return RunTasksResponse.from_core(requests[0].request_id, by_task)
        if wanted.texts:
            results = await self._gate.run_all(requests, timeout_s=timeout_s)
            count(scope, *results)
            return RunListResponse(results=[RunResponse.from_core(result) for result in results])
        result = await self._gate.run(requests[0])
        count(scope, result)
        return RunResponse.from_core(result)


def _with_timeout(fields: dict[str, Any], headers: Headers) -> dict[str, Any]:
    """`fields`, with timeout_s from X-Request-Timeout (seconds) if the body has none."""
    if "x-request-timeout" not in headers:
        return fields
    try:
        timeout_s = float(headers["x-request-timeout"])
    except ValueError as exc:
        raise InvalidRequest("X-Request-Timeout is not a number of seconds", param="timeout_s") from exc
    return {"timeout_s": timeout_s} | fields
