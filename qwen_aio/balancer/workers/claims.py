"""Which of two processes that report under one id has it: its holder, or one that claims it.

A worker that was started again is such a claimant at first, and so is the record of one that ended long ago, or a
worker of another cluster that shares the status folder. Neither a clock, which can be set, nor a generation, which
begins anew when status.json is deleted, tells which of the two came later. So both are watched and asked, a claimant
that is better off gets the id, and a holder that is well keeps it. Owned by the event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from qwen_aio.balancer.params import Params
from qwen_aio.balancer.workers.worker import Worker
from qwen_aio.core import WorkerStatus


class Claims:
    """At most one claimant an id, the one heard of last."""

    def __init__(
        self,
        holders: dict[str, Worker],
        *,
        new_life: Callable[[str, str], Worker],
        rules: Params,
        clock: Callable[[], float],
    ) -> None:
        """`holders`, by id, are the roster's; `new_life` makes one of an id and an address."""
        self._holders = holders
        self._claimants: dict[str, Worker] = {}
        self._new_life = new_life
        self._rules = rules
        self._clock = clock

    def __contains__(self, worker_id: str) -> bool:
        return worker_id in self._claimants

    def __iter__(self) -> Iterator[Worker]:
        return iter(list(self._claimants.values()))

    def writer_of(self, status: WorkerStatus) -> Worker:
        """The process that `status` is of; it holds the id if nothing was heard of any other."""
        holder, claimant = self._holders.get(status.id), self._claimants.get(status.id)
        if holder is None or holder.pulse.status is None:
            holder = self._holders[status.id] = self._new_life(status.id, status.url)
            return holder
        if holder.wrote(status):
            return holder
        if claimant is None or not claimant.wrote(status):
            claimant = self._claimants[status.id] = self._new_life(status.id, status.url)
        return claimant

    def settle(self, worker_id: str) -> bool:
        """Whether the id has gone over to its claimant. One that is not heard of any more gives up its claim."""
        holder, claimant = self._holders.get(worker_id), self._claimants.get(worker_id)
        if claimant is None:
            return False
        if holder is None or self._clock() - claimant.named_at >= self._rules.stale_after_s:
            del self._claimants[worker_id]
            return False
        if claimant.pulse.standing <= holder.pulse.standing:
            return False
        self._holders[worker_id], self._claimants[worker_id] = claimant, holder
        return True
