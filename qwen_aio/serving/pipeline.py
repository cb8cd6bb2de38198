"""Request -> events: plan, have the decision and the answer executed, put the result together.

The executor is a worker's own engine or, in a balancer, the workers. Knows no engine and no HTTP.
Lives on the event loop; holds no state of its own.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Protocol

from qwen_aio.bounds import check_sampling
from qwen_aio.core import Capabilities, DecidedLabel, EngineRequest, FixedAnswer, Plan, Request
from qwen_aio.result import Answer, Decided, Decision, Done, EngineEvent, Event, Explained, Result, Timings, Usage
from qwen_aio.routing import plan
from qwen_aio.serving.deadline import Deadline
from qwen_aio.serving.deltas import Deltas
from qwen_aio.visible import check_visible

DECISION_TIMEOUT_S = 60.0
ANSWER_TIMEOUT_S = 300.0

logger = logging.getLogger(__name__)


class Executor(Protocol):
    """Executes the engine requests that a request leads to."""

    def capabilities(self) -> Capabilities:
        """What can be asked for. Raises NotReady, NoWorker."""

    def execute(self, request: EngineRequest) -> AsyncGenerator[EngineEvent, None]:
        """EngineEvents, by the task's kind. Closing it cancels the work."""

    async def tokenize(self, request: EngineRequest) -> list[int]:
        """The token ids of the prompt of `request`. Raises NoWorker, InvalidRequest, EngineStopped."""


@dataclass(frozen=True)
class _Run:
    """One request under way."""

    request: Request
    plan: Plan
    capabilities: Capabilities
    started: float  # of the clock
    deadline: Deadline


class Pipeline:
    """Serves requests with an executor. Shared by all connections."""

    def __init__(self, executor: Executor, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.executor = executor
        self._clock = clock

    async def capabilities(self) -> Capabilities:
        """What can be asked for. Raises NotReady, NoWorker."""
        return self.executor.capabilities()

    async def stream(self, request: Request) -> AsyncGenerator[Event, None]:
        """Decided (if a decision is part of it), TextDelta*, Explained (if asked for), Done.

        Closing it cancels the work.
        Raises UnknownTask, InvalidRequest, DeadlineExceeded, and what the executor raises.
        """
        run = self._begin(request)
        decision = await self._decide(run) if run.plan.decision else None
        if decision is not None:
            yield Decided(decision)
        answer: Answer | None = None
        if run.plan.answer is not None:
            deltas = Deltas()
            async with aclosing(self._answer(run, decision)) as events:
                while (event := await run.deadline.next(events)) is not None:
                    if isinstance(event, Answer):
                        answer = event
                    if (delta := deltas.take(event)) is not None:
                        yield delta
        if decision is not None and request.explain:
            explanation = (await self._decide(run, explain=True)).explanation
            assert explanation is not None
            yield Explained(explanation)
            decision = replace(decision, explanation=explanation)
        yield Done(self._result(run, decision, answer))

    def _begin(self, request: Request) -> _Run:
        """Checks and plans `request`. Raises UnknownTask, InvalidRequest."""
        check_visible(request.text, param="text")
        capabilities = self.executor.capabilities()
        check_sampling(request.sampling, max_tokens=capabilities.context.answer_tokens)
        planned = plan(request, capabilities.tasks)
        limit_s = request.timeout_s or (ANSWER_TIMEOUT_S if planned.answer else DECISION_TIMEOUT_S)
        return _Run(request, planned, capabilities, self._clock(), Deadline(limit_s))

    async def _decide(self, run: _Run, *, explain: bool = False) -> Decision:
        # A decision is about this text alone: earlier turns would colour it.
        request, task = run.request, run.plan.decision
        assert task is not None
        wanted = EngineRequest(
            request.request_id,
            task.name,
            request.text,
            timeout_s=run.deadline.left_s,
            traceparent=request.traceparent,
            rendering=request.rendering,
            explain=explain,
        )
        async with aclosing(self.executor.execute(wanted)) as events:
            decision = await run.deadline.next(events)
        assert isinstance(decision, Decision), "a decision task yields one Decision or raises"
        return decision

    def _answer(self, run: _Run, decision: Decision | None) -> AsyncGenerator[EngineEvent, None]:
        """TextDelta*, then the finished Answer."""
        request, task = run.request, run.plan.answer
        assert task is not None
        if run.plan.fixed is not None:
            return _fixed_answer(task.name, run.plan.fixed, run.capabilities)
        wanted = EngineRequest(
            request.request_id,
            task.name,
            request.text,
            history=request.history,
            sampling=request.sampling,
            decided=DecidedLabel(decision.task, decision.label) if decision else None,
            timeout_s=run.deadline.left_s,
            traceparent=request.traceparent,
            rendering=request.rendering,
            top_logprobs=request.top_logprobs,
            json_schema=request.json_schema,
        )
        return self.executor.execute(wanted)

    def _result(self, run: _Run, decision: Decision | None, answer: Answer | None) -> Result:
        main = decision if run.plan.main is run.plan.decision else answer
        assert main is not None
        result = Result(
            request_id=run.request.request_id,
            mode=run.plan.main.name,
            route=run.plan.route,
            task_hash=run.plan.main.hash,
            model=main.model,
            worker=main.worker,
            decision=decision,
            answer=answer,
            total_ms=(self._clock() - run.started) * 1000,
        )
        tokens = answer.usage.completion_tokens if answer else 0
        line = "request done id=%s task=%s tokens=%d ms=%d traceparent=%s"
        logger.info(line, result.request_id, result.mode, tokens, result.total_ms, run.request.traceparent or "-")
        return result


async def _fixed_answer(task: str, fixed: FixedAnswer, server: Capabilities) -> AsyncGenerator[EngineEvent, None]:
    yield Answer(
        task, fixed.text, "fixed", Usage(), Timings(), worker=server.worker, model=server.model, safety=fixed.safety
    )
