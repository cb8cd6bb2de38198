"""Brings waiting calls and free places together: late binding from one line.

A call is bound to a worker only when that worker has a place for it, so that what was decided is never out of date.
Knows no HTTP. Owned by the event loop; everything between two awaits is atomic, so there is no lock.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random

from qwen_aio.balancer.cost.queue import QueuedRequest, RequestQueue
from qwen_aio.balancer.dispatch.placement import Placement
from qwen_aio.balancer.dispatch.slot import Slot
from qwen_aio.balancer.params import Params
from qwen_aio.errors import NoWorker, QueueFull

# The line gives up this much before the request's own deadline: its sentence is the more helpful one.
MARGIN_S = 0.05
LONGEST_RETRY_S = 60.0


class Dispatcher:
    """Who waits, and who is let to whom."""

    def __init__(
        self,
        pool: Placement,
        line: RequestQueue,
        *,
        rules: Params,
        clock: Callable[[], float],
        random: Random,
    ) -> None:
        self._pool = pool
        self._line = line
        self._rules = rules
        self._clock = clock
        self._random = random
        self._waiters: dict[QueuedRequest, asyncio.Future[Slot]] = {}

    def __repr__(self) -> str:
        return f"<Dispatcher {len(self._line)} waiting>"

    @asynccontextmanager
    async def seat(self, job: QueuedRequest) -> AsyncIterator[Slot]:
        """A place on a worker, given back when the context ends. Raises QueueFull, NoWorker."""
        self._check_room(job)
        seat = await self._wait(job)
        try:
            yield seat
        finally:
            seat.release()
            self.match()

    def match(self) -> None:
        """Let in whoever there is a place for. Called after everything that may have made one."""
        if not self._waiters:
            return
        stuck = set()  # jobs that are alike find the same workers full
        for job in self._line.in_order(self._clock()):
            likeness = (job.kind, job.is_long, job.call.task, frozenset(job.tried), job.needs)
            waiter = self._waiters[job]
            if likeness in stuck or waiter.done():
                continue
            seat = self._pool.bind(job)
            if seat is None:
                stuck.add(likeness)
            else:
                self._line.remove(job)
                waiter.set_result(seat)

    async def _wait(self, job: QueuedRequest) -> Slot:
        self._line.add(job)
        waiter = self._waiters[job] = asyncio.get_running_loop().create_future()
        seat: Slot | None = None
        try:
            self.match()
            async with asyncio.timeout(max(job.deadline - self._clock() - MARGIN_S, 0)):
                seat = await waiter
        except TimeoutError as exc:
            raise self._waited_in_vain(job) from exc
        finally:
            del self._waiters[job]
            self._line.remove(job)
            if seat is None and waiter.done() and not waiter.cancelled():  # let in, and gone in the same moment
                waiter.result().release()
                self.match()
        assert seat is not None
        return seat

    def _check_room(self, job: QueuedRequest) -> None:
        """Raises QueueFull or NoWorker for a request that need not begin to wait."""
        if job.is_returned or self._pool.has_place(job):
            return  # it was let in once, or does not wait
        if not self._pool.has_been_up_within(self._rules.no_worker_grace_s):
            raise NoWorker(self._pool.absence(), retry_after_s=self._retry_after_s(None))
        wait_s = self._pool.predicted_wait_s(self._line.work_s)
        if len(self._line) >= self._rules.max_queue or (wait_s or 0) > self._rules.max_queued_work_s:
            raise QueueFull(f"{len(self._line)} requests wait already", retry_after_s=self._retry_after_s(wait_s))
        now = self._clock()
        own_wait_s, left_s = self._pool.predicted_wait_s(self._line.ahead_of_s(job, now)), job.deadline - now
        if own_wait_s is not None and own_wait_s > left_s:
            raise QueueFull(
                f"it would wait about {own_wait_s:.0f} s, longer than its deadline of {left_s:.0f} s",
                retry_after_s=self._retry_after_s(own_wait_s),
            )

    def _waited_in_vain(self, job: QueuedRequest) -> QueueFull | NoWorker:
        waited_s = self._clock() - job.arrived
        retry_after_s = self._retry_after_s(self._pool.predicted_wait_s(self._line.work_s))
        if self._pool.num_ready == 0:
            return NoWorker(f"no worker was there for {waited_s:.0f} s", retry_after_s=retry_after_s)
        return QueueFull(f"no worker was free for {waited_s:.0f} s", retry_after_s=retry_after_s)

    def _retry_after_s(self, wait_s: float | None) -> int:
        """1 to 60 s around the predicted wait, spread by 20 % so that not everybody comes back at once."""
        spread = self._random.uniform(0.8, 1.2)
        return round(min(max((wait_s if wait_s is not None else 5.0) * spread, 1.0), LONGEST_RETRY_S))
