"""The slot of one request on one worker: taken by placement, given back by `release`.

Its executor reports to it how the attempt goes, and the slot passes that to worker and registry.
Owned by the coroutine that makes the attempt.
"""

from __future__ import annotations

from qwen_aio.balancer.cost.queue import QueuedRequest
from qwen_aio.balancer.workers.registry import Registry
from qwen_aio.balancer.workers.worker import Worker
from qwen_aio.result import Timings, Usage


class Slot:
    """At most one of `succeed` and `fail` is called; without either the worker is not judged."""

    def __init__(self, registry: Registry, worker: Worker, queued: QueuedRequest, *, why: str) -> None:
        """`queued` is bound to `worker` already; `why` is the reason for this worker."""
        self.id = worker.id
        self.url = worker.url
        self.why = why
        self.compatibility = worker.compatibility(queued.request.task)
        self.patience_s = worker.patience_s(queued)
        self._registry = registry
        self._worker = worker
        self._queued = queued
        self._has_outcome = False
        self._is_released = False

    def __repr__(self) -> str:
        return f"<Slot of request {self._queued.number} on {self.id}{', released' if self._is_released else ''}>"

    @property
    def usual_gap_s(self) -> float:
        return self._worker.usual_gap_s

    def progressed(self) -> None:
        """A token or a decision came."""
        was_suspect = self._worker.health.state == "suspect"
        self._worker.heartbeat.flow()
        if was_suspect:
            self._settle()

    def stalled(self) -> None:
        """Nothing came for too long: the worker gets no new requests until something does."""
        self._worker.heartbeat.stall()
        self._settle()

    def ended(self, why: str) -> None:
        """The worker takes no more requests: it counts as dead, or has said that it shuts down."""
        self._worker.heartbeat.refuse(why)
        self._settle()

    def succeed(self, *, service_s: float, usage: Usage, timings: Timings) -> None:
        """The attempt succeeded and took `service_s` seconds."""
        self._end()
        self._worker.breaker.succeed()
        self._worker.learn(self._queued, service_s=service_s, usage=usage, timings=timings)
        self._worker.heartbeat.flow()
        self._settle()

    def fail(self, why: str) -> None:
        """The attempt failed, and the worker is to blame."""
        self._end()
        self._worker.last_failure = why
        self._worker.breaker.fail(may_open=self._registry.may_open(self._worker))
        self._settle()

    def blame(self, why: str) -> None:
        """Only after a release without an outcome: the worker is to blame after all."""
        assert self._is_released and not self._has_outcome, f"{self} cannot be blamed"
        self._has_outcome = True
        self._worker.last_failure = why
        self._worker.breaker.blame(may_open=self._registry.may_open(self._worker))
        self._settle()

    def release(self) -> None:
        """Give the slot back. Does nothing the second time."""
        if self._is_released:
            return
        self._is_released = True
        if not self._has_outcome:
            self._worker.breaker.abandon()
        self._worker.release(self._queued)

    def _end(self) -> None:
        assert not self._has_outcome and not self._is_released, f"{self} is over already"
        self._has_outcome = True

    def _settle(self) -> None:
        self._registry.settle(self._worker, "call")
