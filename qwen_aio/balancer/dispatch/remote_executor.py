"""Executes requests on the best workers, and retries on others (rules: retry_state.py).

Retries after error answers come out of a budget; after a lost connection they are free.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass

from qwen_aio.balancer.cost.queue import QueuedRequest
from qwen_aio.balancer.dispatch.attempt import Attempt
from qwen_aio.balancer.dispatch.dispatcher import MARGIN_S, Dispatcher
from qwen_aio.balancer.dispatch.failure import check_sense, is_blameless, is_clients
from qwen_aio.balancer.dispatch.retry_budget import RetryBudget
from qwen_aio.balancer.dispatch.retry_state import RetryState, answer_broken, seeded
from qwen_aio.balancer.dispatch.slot import Slot
from qwen_aio.balancer.metrics import BalancerMetrics
from qwen_aio.balancer.params import Params
from qwen_aio.balancer.reasons import TAKES_NO_WORK, Reason
from qwen_aio.balancer.snapshot import RequestRow
from qwen_aio.balancer.stats import Stats
from qwen_aio.balancer.workers.clients import WorkerClients
from qwen_aio.balancer.workers.registry import Registry
from qwen_aio.core import Capabilities, EngineRequest
from qwen_aio.errors import (
    AccessDenied,
    BadReply,
    CalledOff,
    ConnectionLost,
    DeadlineExceeded,
    Draining,
    EngineStopped,
    KeyRefused,
    NotReady,
    NoWorker,
    QueueFull,
    QwenAioError,
    ServerUnreachable,
    WorkerStalled,
)
from qwen_aio.result import Answer, Decision, EngineEvent
from qwen_aio.serving.pipeline import ANSWER_TIMEOUT_S

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class RemoteExecutor:
    """Executes every request on the worker that is best for it."""

    registry: Registry
    dispatcher: Dispatcher
    clients: WorkerClients
    budget: RetryBudget
    stats: Stats
    metrics: BalancerMetrics
    params: Params
    clock: Callable[[], float]
    is_gone: Callable[[str], Awaitable[bool]]  # asks a worker, tells the registry

    def __post_init__(self) -> None:
        self._numbers = itertools.count(1)
        self._attempts: set[Attempt] = set()  # those that run

    def capabilities(self) -> Capabilities:
        """What the workers can do. Raises NoWorker until one has reported it."""
        capabilities = self.registry.capabilities()
        if capabilities is None:
            raise NoWorker(self.registry.absence(), retry_after_s=5)
        return capabilities

    async def execute(self, request: EngineRequest) -> AsyncGenerator[EngineEvent, None]:
        """The EngineEvents of `request`, whatever workers do meanwhile.

        Closing it cancels what runs.

        Raises what a worker says to the client, QueueFull, NoWorker, AnswerBroken, PoisonRequest.
        """
        state = self._begin(request)
        self.budget.earn()
        with self._recorded(state):
            while state.last is None:
                async with self._attempt(state) as attempt:
                    while state.last is None:
                        yield await self._next(state, attempt)

    async def tokenize(self, request: EngineRequest) -> list[int]:
        """The token ids of the prompt of `request`, from the first worker that can tell; it takes no slot there.

        Raises what a worker says to the client, NoWorker.
        """
        failure: QwenAioError = NoWorker(self.registry.absence(), retry_after_s=2)
        for url in self.registry.urls_with(request.task):
            try:
                return await self.clients.to(url).tokenize(request)
            except (KeyRefused, AccessDenied) as exc:  # the balancer's own key
                failure = exc
            except QwenAioError as exc:
                if is_clients(exc):
                    raise
                failure = exc
        raise NoWorker(f"no worker could tell the tokens: {failure.message}", retry_after_s=2) from failure

    def call_off(self, worker_id: str) -> None:
        """Move requests that have got nothing from this worker yet to others."""
        for attempt in self._attempts:
            if attempt.slot.id == worker_id:
                attempt.call_off()

    def _begin(self, request: EngineRequest) -> RetryState:
        task = self.capabilities().tasks.get(request.task)
        if task is None:
            raise NoWorker(f"the last worker with the task {request.task} has just gone", retry_after_s=2)
        request = seeded(request, task.kind)
        now, costs = self.clock(), self.registry.costs
        deadline = now + (request.timeout_s or ANSWER_TIMEOUT_S)
        queued = QueuedRequest(
            number=next(self._numbers),
            request=request,
            kind=task.kind,
            work_s=costs.work_s(request, task.kind),
            arrived=now,
            deadline=deadline,
            is_long=costs.is_long(request, task.kind),
        )
        return RetryState(queued, task, self.params, deadline)

    @asynccontextmanager
    async def _attempt(self, state: RetryState) -> AsyncIterator[Attempt]:
        """One worker's turn. Swallows a failure after which another worker may try."""
        state.queued_since = self.clock()
        async with self.dispatcher.slot(state.queued) as slot:
            self.metrics.picked(slot.id, after=state.slot.id if state.slot else None)
            request = state.start(slot, now=self.clock())
            try:
                async with aclosing(self.clients.to(slot.url).execute(request)) as events:
                    attempt = Attempt(slot, events, self.params)
                    self._attempts.add(attempt)
                    try:
                        yield attempt
                    finally:
                        self._attempts.discard(attempt)
                return
            except QwenAioError as exc:
                failure = exc
        await self._prepare_retry(state, slot, failure)

    async def _next(self, state: RetryState, attempt: Attempt) -> EngineEvent:
        """The next event for the client. Reports to the slot how the attempt goes."""
        slot = attempt.slot
        try:
            event = check_sense(await attempt.next(), state.queued.kind)
        except QwenAioError as exc:
            if not is_blameless(exc):
                slot.fail(exc.message)
            raise
        slot.progressed()
        now = self.clock()
        if isinstance(event, Decision | Answer):
            slot.succeed(service_s=now - state.attempt_began, usage=event.usage, timings=event.timings)
            state.clear(slot)
        return state.send(event, now=now)

    async def _prepare_retry(self, state: RetryState, slot: Slot, failure: QwenAioError) -> None:
        """Prepare one more attempt. Raises what the client is to get if there is none."""
        if is_clients(failure):
            raise failure
        state.fail(slot, failure, has_died=await self._has_died(slot, failure))
        if isinstance(failure, Draining | NotReady) and not isinstance(failure, CalledOff):
            slot.ended(Reason(TAKES_NO_WORK, failure=failure.message))
        has_another = self.registry.has_another(state.queued)
        state.check_retry(slot, failure, self.budget, has_another=has_another)
        if not has_another:
            state.start_over(now=self.clock())
        logger.warning("retry id=%s from=%s why=%s", state.queued.request.request_id, slot.id, failure.code)

    async def _has_died(self, slot: Slot, failure: QwenAioError) -> bool:
        if isinstance(failure, WorkerStalled | EngineStopped):
            slot.ended(failure.message)
            return True
        if isinstance(failure, BadReply) or not isinstance(failure, ServerUnreachable):
            return False
        return await self.is_gone(slot.id) and isinstance(failure, ConnectionLost)

    @contextmanager
    def _recorded(self, state: RetryState) -> Iterator[None]:
        """Writes the request log; after the first text, QueueFull and NoWorker are AnswerBroken."""
        error: BaseException | None = None
        try:
            yield
        except (NoWorker, QueueFull) as exc:
            error = answer_broken() if state.token_ids else exc
            raise error from exc
        except BaseException as exc:
            is_late = isinstance(exc, asyncio.CancelledError) and self.clock() >= state.deadline - MARGIN_S
            error = DeadlineExceeded("not finished in time") if is_late else exc
            raise
        finally:
            self._record(state, None if state.last else error)  # the client has everything

    def _record(self, state: RetryState, error: BaseException | None) -> None:
        now = self.clock()
        state.unqueue(now=now)
        row = RequestRow(
            id=state.queued.request.request_id,
            task=state.queued.request.task,
            worker=state.slot.id if state.slot else "",
            why=state.slot.why if state.slot else "",
            attempts=state.attempts,
            queue_ms=state.queued_s * 1000,
            total_ms=(now - state.queued.arrived) * 1000,
            tokens=state.last.usage.completion_tokens if state.last else len(state.token_ids),
        )
        self.stats.record(row, error)
        if state.last and not state.queued.request.explain:  # the decision was counted when it was made
            self.metrics.requests.observe(state.task, state.last, is_resumed=state.is_resumed)
