"""Request -> events: plan, let the decision and the answer be called, put the outcome together.

Whoever can make calls can serve requests: a worker calls its own engine, a balancer the workers behind it. Knows no
engine and no HTTP. Lives on the event loop; holds no state of its own.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from qwen_aio.bounds import check_sampling
from qwen_aio.core import (
    Answer,
    Capabilities,
    Decided,
    DecidedLabel,
    Decision,
    Done,
    EngineEvent,
    EngineRequest,
    Event,
    Plan,
    Request,
    Result,
    Task,
    TextDelta,
    Timings,
    Usage,
)
from qwen_aio.routing import plan
from qwen_aio.serving.deadline import within
from qwen_aio.visible import check_visible

DECISION_TIMEOUT_S = 60.0
ANSWER_TIMEOUT_S = 300.0

logger = logging.getLogger(__name__)


class Executor(Protocol):
    """Whoever makes the calls that a request leads to."""

    def offer(self) -> Capabilities:
        """What can be asked for. Raises NotReady, NoWorker."""

    def make(self, call: EngineRequest) -> AsyncGenerator[EngineEvent, None]:
        """One Decision for a decision task; TextDelta*, Answer for a generation task. Closing it cancels what runs."""


@dataclass(frozen=True)
class _Course:
    """One request under way."""

    request: Request
    plan: Plan
    offer: Capabilities
    started: float  # of the clock
    deadline: float  # of the event loop


class Pipeline:
    """Serves requests by calls. Shared by all connections."""

    def __init__(self, calls: Executor, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._calls = calls
        self._clock = clock

    async def tasks(self) -> Mapping[str, Task]:
        """Every task by name. Raises NotReady, NoWorker."""
        return self._calls.offer().tasks

    async def stream(self, request: Request) -> AsyncGenerator[Event, None]:
        """Decided (if a decision is part of it), TextDelta*, Done. Closing it cancels what runs.

        Raises UnknownTask, InvalidRequest, DeadlineExceeded, and what making a call raises.
        """
        check_visible(request.text, param="text")
        offer = self._calls.offer()
        check_sampling(request.sampling, max_tokens=offer.context.answer_tokens)  # before a decision is made
        planned = plan(request, offer.tasks)
        limit_s = request.timeout_s or (ANSWER_TIMEOUT_S if planned.answer else DECISION_TIMEOUT_S)
        deadline = asyncio.get_running_loop().time() + limit_s
        course = _Course(request, planned, offer, self._clock(), deadline)
        async with aclosing(within(self._events(course), limit_s)) as events:
            async for event in events:
                yield event

    async def _events(self, course: _Course) -> AsyncGenerator[Event, None]:
        decision = await self._decide(course) if course.plan.decision else None
        if decision is not None:
            yield Decided(decision)
        answer: Answer | None = None
        if course.plan.answer is not None:
            index = 0
            async with aclosing(self._answer(course, course.plan.answer, decision)) as pieces:
                async for piece in pieces:
                    if isinstance(piece, Answer):
                        answer = piece
                    elif piece.text:
                        yield TextDelta(piece.text, index=index)
                        index += 1
        yield Done(self._result(course, decision, answer))

    async def _decide(self, course: _Course) -> Decision:
        # A decision is about this text alone: earlier turns would colour it.
        assert course.plan.decision is not None
        call = EngineRequest(
            course.request.request_id,
            course.plan.decision.name,
            course.request.text,
            timeout_s=_left_s(course),
        )
        async with aclosing(self._calls.make(call)) as events:
            async for event in events:
                assert isinstance(event, Decision)
                return event
        raise AssertionError("a decision call gives one Decision or an error")

    async def _answer(
        self, course: _Course, task: Task, decision: Decision | None
    ) -> AsyncGenerator[TextDelta | Answer, None]:
        """TextDelta*, then the finished Answer."""
        if course.plan.fixed is not None:
            yield TextDelta(course.plan.fixed)
            name, model = course.offer.worker, course.offer.model
            yield Answer(task.name, course.plan.fixed, "fixed", Usage(), Timings(), worker=name, model=model)
            return
        request = course.request
        call = EngineRequest(
            request.request_id,
            task.name,
            request.text,
            history=request.history,
            sampling=request.sampling,
            verdict=DecidedLabel(decision.task, decision.label) if decision else None,
            timeout_s=_left_s(course),
        )
        async with aclosing(self._calls.make(call)) as events:
            async for event in events:
                assert not isinstance(event, Decision)
                yield event

    def _result(self, course: _Course, decision: Decision | None, answer: Answer | None) -> Result:
        main = decision if course.plan.main is course.plan.decision else answer
        assert main is not None
        result = Result(
            request_id=course.request.request_id,
            mode=course.plan.main.name,
            route=course.plan.route,
            task_hash=course.plan.main.hash,
            model=main.model,
            worker=main.worker,
            decision=decision,
            answer=answer,
            total_ms=(self._clock() - course.started) * 1000,
        )
        logger.info(
            "request done id=%s task=%s tokens=%d ms=%d",
            result.request_id,
            result.mode,
            answer.usage.completion_tokens if answer else 0,
            result.total_ms,
        )
        return result


async def result_of(events: AsyncGenerator[Event, None]) -> Result:
    """The result at the end of a stream."""
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Done):
                return event.result
    raise AssertionError("a stream ends with Done or an error")


def _left_s(course: _Course) -> float:
    return max(course.deadline - asyncio.get_running_loop().time(), 0.001)
