"""Binds requests to workers: the policy chooses among the workers with a free slot."""

from __future__ import annotations

from collections.abc import Sequence

from qwen_aio.balancer.cost.policies import Policy
from qwen_aio.balancer.cost.queue import QueuedRequest
from qwen_aio.balancer.dispatch.slot import Slot
from qwen_aio.balancer.reasons import ONLY_FREE, PROBE_DEMOTED, PROBE_HALF_OPEN, PROBE_IDLE, Reason
from qwen_aio.balancer.workers.registry import Registry
from qwen_aio.balancer.workers.worker import Worker


class Placement:
    """Binds requests to the workers of a registry."""

    def __init__(self, registry: Registry, policy: Policy) -> None:
        self._registry = registry
        self._policy = policy
        self._turns = 0  # requests bound so far

    def bind(self, queued: QueuedRequest) -> Slot | None:
        """A slot on the best worker that has one for `queued`; None if none has."""
        free = self._free(queued)
        candidates = {worker.id: worker for worker in _to_probe(free, queued) or free}
        choice = self._policy.choose(queued.work_s, [worker.load for worker in candidates.values()])
        if choice is None:
            return None
        worker = candidates[choice.load.id]
        why = _probe_why(worker, queued) or (choice.why() if len(free) > 1 else Reason(ONLY_FREE))
        if worker.is_probe_due:
            worker.demotion.probe_sent()
        self._turns += 1
        worker.bind(queued, self._turns)
        return Slot(self._registry, worker, queued, why=why)

    def has_slot(self, queued: QueuedRequest) -> bool:
        return bool(self._free(queued))

    def predicted_wait_s(self, ahead_s: float) -> float | None:
        """Seconds until requests of `ahead_s` of work have a slot; None while no worker is ready.

        A speed is that of one request among those beside it, so a worker with n requests does n
        times that.
        """
        ready = self._registry.ready()
        if not ready:
            return None
        if ahead_s == 0 and any(worker.has_room for worker in ready):
            return 0.0
        work_s = ahead_s + sum(worker.work_s for worker in ready)
        return work_s / sum(worker.speed * max(worker.in_flight, 1) for worker in ready)

    def _free(self, queued: QueuedRequest) -> list[Worker]:
        return [worker for worker in self._registry.ready() if worker.can_take(queued)]


def _to_probe(free: Sequence[Worker], queued: QueuedRequest) -> list[Worker]:
    """Workers that get a short request at any cost, to show whether they have recovered."""
    return [worker for worker in free if worker.is_probe_due] if queued.kind == "decision" else []


def _probe_why(worker: Worker, queued: QueuedRequest) -> str:
    """The reason, if `queued` is a probe of `worker`; else empty."""
    if worker.breaker.state == "half_open":
        return Reason(PROBE_HALF_OPEN)
    if _to_probe([worker], queued):
        return Reason(PROBE_DEMOTED) if worker.is_demoted else Reason(PROBE_IDLE)
    return ""
