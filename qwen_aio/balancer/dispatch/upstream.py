"""Calls made on workers elsewhere: attempts, what to do when one fails, and going on with a broken answer.

    nothing sent yet       another worker, at most two more
    pieces sent already    another worker of the same model and task goes on behind them
    the caller's mistake   is the caller's to hear; nobody else is asked
    two workers died       the request is poison; no third one gets it
    computing it failed    one more worker; where that one can do it, the first is to blame, else the request is

Attempts after error answers come out of a budget; after a lost connection they are free. Owned by the event loop.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass

from qwen_aio.balancer.cost.estimate import CostModel
from qwen_aio.balancer.cost.queue import QueuedRequest
from qwen_aio.balancer.dispatch.attempts import RetryState, seeded
from qwen_aio.balancer.dispatch.dispatcher import MARGIN_S, Dispatcher
from qwen_aio.balancer.dispatch.failure import check_sense, is_blameless, is_callers, is_free
from qwen_aio.balancer.dispatch.placement import Placement
from qwen_aio.balancer.dispatch.retry_budget import RetryBudget
from qwen_aio.balancer.dispatch.slot import Slot
from qwen_aio.balancer.params import Params
from qwen_aio.balancer.reasons import Reason
from qwen_aio.balancer.stats import Stats
from qwen_aio.balancer.workers.clients import WorkerClients
from qwen_aio.core import Answer, Capabilities, Decision, EngineEvent, EngineRequest, TextDelta
from qwen_aio.errors import (
    AnswerBroken,
    BadReply,
    CalledOff,
    ConnectionLost,
    DeadlineExceeded,
    Draining,
    EngineStopped,
    NotReady,
    NoWorker,
    PoisonRequest,
    QueueFull,
    QwenAioError,
    RequestFailed,
    ServerUnreachable,
    WorkerStalled,
)
from qwen_aio.serving.pipeline import ANSWER_TIMEOUT_S

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Surroundings:
    """What a call meets on its way; all of it lives as long as the balancer."""

    pool: Placement
    dispatcher: Dispatcher
    links: WorkerClients
    estimator: CostModel
    budget: RetryBudget
    board: Stats
    rules: Params
    clock: Callable[[], float]
    is_gone: Callable[[str], Awaitable[bool]]  # asks a worker whether it lives, and tells the pool


class RemoteExecutor:
    """Makes every call on the worker that is best for it."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._numbers = itertools.count(1)
        self._first_waits: dict[asyncio.Timeout, Slot] = {}  # of the calls that no token has come of yet
        self._called_off: set[asyncio.Timeout] = set()

    def offer(self) -> Capabilities:
        """What the workers can do. Raises NoWorker until one has said it."""
        offer = self._around.pool.offer()
        if offer is None:
            raise NoWorker(self._around.pool.absence(), retry_after_s=5)
        return offer

    async def make(self, call: EngineRequest) -> AsyncGenerator[EngineEvent, None]:
        """One Decision, or TextDelta*, Answer; whatever workers do meanwhile. Closing it cancels what runs.

        Raises what a worker says to the caller, QueueFull, NoWorker, AnswerBroken, PoisonRequest.
        """
        journey = self._journey(call)
        error: BaseException | None = None
        last: Decision | Answer | None = None
        self._around.budget.earn()
        try:
            async with aclosing(self._attempts(journey)) as events:
                async for event in events:
                    last = event if isinstance(event, Decision | Answer) else None
                    yield event
        except (NoWorker, QueueFull) as exc:
            error = _broken() if journey.token_ids else exc  # it has begun: "try again later" is not the point
            raise error from exc
        except BaseException as exc:
            error = self._deadline_passed(journey, exc) or exc
            raise
        finally:
            self._record(journey, last, None if last else error)  # who has what they asked for may hang up

    def call_off(self, worker_id: str) -> None:
        """Calls on this worker that have got nothing yet are made elsewhere."""
        for wait in [wait for wait, seat in self._first_waits.items() if seat.id == worker_id]:
            if not wait.expired():  # else it is ending already, of this or of a stall
                self._called_off.add(wait)
                wait.reschedule(asyncio.get_running_loop().time())

    def _journey(self, call: EngineRequest) -> RetryState:
        around = self._around
        task = self.offer().tasks.get(call.task)
        if task is None:
            raise NoWorker(f"whoever could do {call.task} has just gone", retry_after_s=2)
        now = around.clock()
        deadline = now + (call.timeout_s or ANSWER_TIMEOUT_S)
        job = QueuedRequest(
            number=next(self._numbers),
            call=call,
            kind=task.kind,
            work_s=around.estimator.work_s(call, task.kind),
            arrived=now,
            deadline=deadline,
            is_long=around.estimator.is_long(call, task.kind),
        )
        return RetryState(seeded(call, task.kind), job, now, deadline)

    async def _attempts(self, journey: RetryState) -> AsyncGenerator[EngineEvent, None]:
        while True:
            journey.wait(now=self._around.clock())
            async with self._around.dispatcher.seat(journey.job) as seat:
                journey.sit(seat, now=self._around.clock())
                try:
                    async with aclosing(self._attempt(journey, seat)) as events:
                        async for event in events:
                            yield event
                    return
                except QwenAioError as exc:
                    failure = exc
            await self._prepare_next(journey, seat, failure)

    async def _attempt(self, journey: RetryState, seat: Slot) -> AsyncGenerator[EngineEvent, None]:
        """One worker's events. Tells the seat how it went."""
        around = self._around
        started = around.clock()
        try:
            link = around.links.to(seat.url)
            async with aclosing(self._watched(link.make(journey.next_call(now=started)), seat)) as events:
                async for event in events:
                    check_sense(event, journey.job.kind)
                    seat.progressed()
                    if isinstance(event, TextDelta):
                        journey.add(event)
                        yield event
                        continue
                    service_s = around.clock() - started
                    seat.succeed(service_s=service_s, usage=event.usage, timings=event.timings)
                    around.estimator.learn(journey.call, journey.job.kind, event.usage)
                    if journey.doubted is not None and journey.doubted.id != seat.id:
                        journey.doubted.blame(f"it failed at what {seat.id} could do")
                    yield journey.finished(event, now=around.clock())
                    return
        except QwenAioError as exc:
            if not is_blameless(exc):
                seat.fail(exc.message)
            raise

    async def _watched(
        self, events: AsyncGenerator[EngineEvent, None], seat: Slot
    ) -> AsyncGenerator[EngineEvent, None]:
        """All of `events`. The seat hears of a silence; one of twice that length is the end. Raises WorkerStalled."""
        rules = self._around.rules
        async with aclosing(events):
            event = await self._first(events, seat, seat.patience_s)
            while event is not None:
                yield event
                limit_s = max(rules.least_gap_s, rules.gap_factor * seat.usual_gap_s)
                event = await self._next(events, seat, asyncio.timeout(2 * limit_s))

    async def _first(self, events: AsyncGenerator[EngineEvent, None], seat: Slot, limit_s: float) -> EngineEvent | None:
        """The first event; a call may be called off until it comes. Raises Draining then."""
        wait = asyncio.timeout(2 * limit_s)
        self._first_waits[wait] = seat
        try:
            return await self._next(events, seat, wait)
        except WorkerStalled as exc:
            if wait in self._called_off:
                raise CalledOff(f"{seat.id} was taken offline") from exc
            raise
        finally:
            del self._first_waits[wait]
            self._called_off.discard(wait)

    async def _next(
        self, events: AsyncGenerator[EngineEvent, None], seat: Slot, wait: asyncio.Timeout
    ) -> EngineEvent | None:
        """The next event, None at the end; half-way through the wait the seat hears of the silence."""
        loop = asyncio.get_running_loop()
        silence_s = (wait.when() or loop.time()) - loop.time()
        warning = loop.call_later(silence_s / 2, seat.stalled)
        try:
            async with wait:
                return await anext(events, None)
        except TimeoutError as exc:
            raise WorkerStalled(f"{seat.id} gave nothing for {silence_s:.0f} s") from exc
        finally:
            warning.cancel()

    async def _prepare_next(self, journey: RetryState, seat: Slot, failure: QwenAioError) -> None:
        """Make the journey ready for one more attempt. Raises what the caller is to hear if there is none."""
        around, job = self._around, journey.job
        if is_callers(failure):
            raise failure
        if await self._has_died(seat, failure):
            journey.num_deaths += 1
        if journey.num_deaths >= around.rules.max_deaths:
            raise PoisonRequest("two workers died while this request was on them; no third one gets it") from failure
        if isinstance(failure, Draining | NotReady):
            if not isinstance(failure, CalledOff):
                seat.ended(Reason("takes_no_work", failure=failure.message))
        else:
            journey.num_failures += 1
        job.tried.add(seat.id)
        job.is_returned = True
        job.deadline = journey.deadline
        if journey.token_ids:
            job.needs = seat.twin
        has_another = around.pool.has_another(job)
        is_last = journey.num_failures > around.rules.max_other_workers
        if isinstance(failure, RequestFailed):
            is_last = is_last or journey.doubted is not None or not has_another
            journey.doubted = seat
        if is_last or not (is_free(failure) or around.budget.spend()):
            raise _last_word(journey, failure)
        if not has_another:
            self._start_over(journey)
        logger.warning("call sent on id=%s from=%s why=%s", journey.call.request_id, seat.id, failure.code)

    def _start_over(self, journey: RetryState) -> None:
        """Nobody is left who was not tried: then those are good who come back."""
        job = journey.job
        job.tried.clear()
        if journey.token_ids:  # somebody waits in the middle of a sentence: not for ever
            job.deadline = min(journey.deadline, self._around.clock() + self._around.rules.no_worker_grace_s)

    async def _has_died(self, seat: Slot, failure: QwenAioError) -> bool:
        if isinstance(failure, WorkerStalled | EngineStopped):
            seat.ended(failure.message)
            return True
        if isinstance(failure, BadReply) or not isinstance(failure, ServerUnreachable):
            return False
        return await self._around.is_gone(seat.id) and isinstance(failure, ConnectionLost)

    def _deadline_passed(self, journey: RetryState, error: BaseException) -> DeadlineExceeded | None:
        """What the caller hears in the place of a cancellation, if that is what it is."""
        if not isinstance(error, asyncio.CancelledError) or self._around.clock() < journey.deadline - MARGIN_S:
            return None
        return DeadlineExceeded("not finished in time")

    def _record(self, journey: RetryState, last: Decision | Answer | None, error: BaseException | None) -> None:
        now = self._around.clock()
        journey.stand(now=now)
        seat = journey.seat
        self._around.board.record(
            request_id=journey.call.request_id,
            task=journey.call.task,
            worker=seat.id if seat else "",
            why=seat.why if seat else "",
            attempts=journey.attempts,
            queue_ms=journey.waited_s * 1000,
            total_ms=(now - journey.began) * 1000,
            tokens=last.usage.completion_tokens if last else len(journey.token_ids),
            error=error,
        )


def _last_word(journey: RetryState, failure: QwenAioError) -> QwenAioError:
    if isinstance(failure, RequestFailed):
        return failure
    if journey.token_ids:
        return _broken()
    if isinstance(failure, ServerUnreachable):
        return NoWorker(f"{journey.attempts} workers in a row could not be reached", retry_after_s=2)
    return failure


def _broken() -> AnswerBroken:
    return AnswerBroken("a worker was lost in the middle of this answer, and no other could go on", retry_after_s=1)
