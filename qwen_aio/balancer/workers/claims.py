"""Decides which of two processes with one worker id holds it.

A restarted worker is a claimant at first, and so is the report of a process that ended long ago, or
a worker of another cluster that shares the status folder. Neither a clock, which can be set, nor a
generation, which restarts when status.json is deleted, tells which of the two is newer. So both are
watched and asked: a claimant in better health gets the id, and a holder in good health keeps it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from qwen_aio.balancer.params import Params
from qwen_aio.balancer.workers.worker import Worker
from qwen_aio.status.record import WorkerStatus


@dataclass(eq=False)
class Claims:
    """At most one claimant per id, the one that reported last."""

    holders: dict[str, Worker]  # by id: the registry's
    new_worker: Callable[[str, str], Worker]  # takes an id and an address
    params: Params
    clock: Callable[[], float]

    def __post_init__(self) -> None:
        self._claimants: dict[str, Worker] = {}

    def __contains__(self, worker_id: str) -> bool:
        return worker_id in self._claimants

    def __iter__(self) -> Iterator[Worker]:
        return iter(list(self._claimants.values()))

    def writer_of(self, status: WorkerStatus) -> Worker:
        """The process that wrote `status`; the holder, if the id has none with a report."""
        holder, claimant = self.holders.get(status.id), self._claimants.get(status.id)
        if holder is None or holder.heartbeat.status is None:
            holder = self.holders[status.id] = self.new_worker(status.id, status.url)
            return holder
        if holder.wrote(status):
            return holder
        if claimant is None or not claimant.wrote(status):
            claimant = self._claimants[status.id] = self.new_worker(status.id, status.url)
        return claimant

    def settle(self, worker_id: str) -> bool:
        """Whether the id passed to its claimant. A silent claimant loses its claim."""
        holder, claimant = self.holders.get(worker_id), self._claimants.get(worker_id)
        if claimant is None:
            return False
        if holder is None or self.clock() - claimant.named_at >= self.params.stale_after_s:
            del self._claimants[worker_id]
            return False
        if claimant.heartbeat.standing <= holder.heartbeat.standing:
            return False
        self.holders[worker_id], self._claimants[worker_id] = claimant, holder
        return True
