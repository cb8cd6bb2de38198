"""Matches waiting requests with free slots: late binding from one queue.

A request is bound to a worker only when that worker has a slot for it, so no decision is ever out
of date. Knows no HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random

from qwen_aio.balancer.cost.queue import QueuedRequest, RequestQueue
from qwen_aio.balancer.dispatch.placement import Placement
from qwen_aio.balancer.dispatch.slot import Slot
from qwen_aio.balancer.params import Params
from qwen_aio.balancer.workers.registry import Registry
from qwen_aio.errors import NoWorker, QueueFull

# The queue gives up so long before the request's own deadline: its message is the more helpful one.
MARGIN_S = 0.05
MAX_RETRY_AFTER_S = 60.0


@dataclass(eq=False)
class Dispatcher:
    """Lets requests wait, and lets them in."""

    registry: Registry
    placement: Placement
    queue: RequestQueue
    params: Params
    clock: Callable[[], float]
    random: Random

    def __post_init__(self) -> None:
        self._waiters: dict[QueuedRequest, asyncio.Future[Slot]] = {}

    def __repr__(self) -> str:
        return f"<Dispatcher {len(self.queue)} waiting>"

    @asynccontextmanager
    async def slot(self, queued: QueuedRequest) -> AsyncIterator[Slot]:
        """A slot on a worker, given back when the context ends. Raises QueueFull, NoWorker."""
        self._check_room(queued)
        slot = await self._wait(queued)
        try:
            yield slot
        finally:
            slot.release()
            self.match()

    def match(self) -> None:
        """Let in every request that has a slot. Called after everything that may have freed one."""
        if not self._waiters:
            return
        stuck = set()  # requests that are alike find the same workers full
        for queued in self.queue.in_order(self.clock()):
            likeness = (queued.kind, queued.is_long, queued.request.task, frozenset(queued.tried), queued.needs)
            waiter = self._waiters[queued]
            if likeness in stuck or waiter.done():
                continue
            slot = self.placement.bind(queued)
            if slot is None:
                stuck.add(likeness)
            else:
                self.queue.remove(queued)
                waiter.set_result(slot)

    async def _wait(self, queued: QueuedRequest) -> Slot:
        self.queue.add(queued)
        waiter = self._waiters[queued] = asyncio.get_running_loop().create_future()
        slot: Slot | None = None
        try:
            self.match()
            async with asyncio.timeout(max(queued.deadline - self.clock() - MARGIN_S, 0)):
                slot = await waiter
        except TimeoutError as exc:
            raise self._gave_up(queued) from exc
        finally:
            del self._waiters[queued]
            self.queue.remove(queued)
            if slot is None and waiter.done() and not waiter.cancelled():  # cancelled with a slot
                waiter.result().release()
                self.match()
        assert slot is not None
        return slot

    def _check_room(self, queued: QueuedRequest) -> None:
        """Raises QueueFull or NoWorker for a request that need not start to wait."""
        if queued.is_returned or self.placement.has_slot(queued):
            return  # it was let in once, or does not wait
        if not self.registry.was_ready_within(self.params.no_worker_grace_s):
            raise NoWorker(self.registry.absence(), retry_after_s=self._retry_after_s(None))
        wait_s = self.placement.predicted_wait_s(self.queue.work_s)
        if len(self.queue) >= self.params.max_queue or (wait_s or 0) > self.params.max_queued_work_s:
            raise QueueFull(f"{len(self.queue)} requests wait already", retry_after_s=self._retry_after_s(wait_s))
        now = self.clock()
        own_wait_s = self.placement.predicted_wait_s(self.queue.ahead_of_s(queued, now))
        left_s = queued.deadline - now
        if own_wait_s is not None and own_wait_s > left_s:
            raise QueueFull(
                f"it would wait about {own_wait_s:.0f} s, longer than its deadline of {left_s:.0f} s",
                retry_after_s=self._retry_after_s(own_wait_s),
            )

    def _gave_up(self, queued: QueuedRequest) -> QueueFull | NoWorker:
        waited_s = self.clock() - queued.arrived
        retry_after_s = self._retry_after_s(self.placement.predicted_wait_s(self.queue.work_s))
        if self.registry.num_ready == 0:
            return NoWorker(f"no worker was there for {waited_s:.0f} s", retry_after_s=retry_after_s)
        return QueueFull(f"no worker was free for {waited_s:.0f} s", retry_after_s=retry_after_s)

    def _retry_after_s(self, wait_s: float | None) -> int:
        """1 to 60 s around the predicted wait; a spread of 20 % keeps clients apart."""
        spread = self.random.uniform(0.8, 1.2)
        return round(min(max((wait_s if wait_s is not None else 5.0) * spread, 1.0), MAX_RETRY_AFTER_S))
