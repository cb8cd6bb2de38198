"""The place of one job on one life of a worker: taken before it is made, given back by `release`.

Whoever makes the call tells it what happens, and it tells the worker's life and the pool. Owned by that coroutine.
"""

from __future__ import annotations

from collections.abc import Callable

from qwen_aio.balancer.cost.queue import QueuedRequest
from qwen_aio.balancer.workers.worker import Worker
from qwen_aio.core import Timings, Usage


class Slot:
    """Gets at most one of `succeed` and `fail`; without either the call said nothing about the worker."""

    def __init__(
        self,
        life: Worker,
        job: QueuedRequest,
        *,
        why: str,
        may_open: Callable[[], bool],
        on_change: Callable[[], None],
    ) -> None:
        """`job` is bound to `life` already. `may_open`: its breaker; `on_change`: something about it has changed."""
        self.id = life.id
        self.url = life.url
        self.why = why
        self.twin = life.twin(job.call.task)
        self.patience_s = life.patience_s(job)
        self._life = life
        self._job = job
        self._may_open = may_open
        self._on_change = on_change
        self._has_verdict = False
        self._is_released = False

    def __repr__(self) -> str:
        return f"<Seat of job {self._job.number} on {self.id}{', released' if self._is_released else ''}>"

    @property
    def usual_gap_s(self) -> float:
        """Seconds between two tokens of this worker."""
        return self._life.usual_gap_s

    def progressed(self) -> None:
        """A token or a decision came."""
        was_suspect = self._life.finding.health == "suspect"
        self._life.pulse.flow()
        if was_suspect:
            self._on_change()

    def stalled(self) -> None:
        """Nothing came for too long: the worker gets no new work until something does."""
        self._life.pulse.stall()
        self._on_change()

    def ended(self, why: str) -> None:
        """Its worker takes no more work: it is taken for dead, or has said that it shuts down."""
        self._life.pulse.refuse(why)
        self._on_change()

    def succeed(self, *, service_s: float, usage: Usage, timings: Timings) -> None:
        """The call went well and took `service_s` seconds."""
        self._end()
        self._life.breaker.succeed()
        self._life.learn(self._job, service_s=service_s, usage=usage, timings=timings)
        self._life.pulse.flow()
        self._on_change()

    def fail(self, why: str) -> None:
        """The call failed, and the worker is to blame."""
        self._end()
        self._life.last_failure = why
        self._life.breaker.fail(may_open=self._may_open())
        self._on_change()

    def blame(self, why: str) -> None:
        """After the end, and without a verdict before: the worker is to blame after all."""
        assert self._is_released and not self._has_verdict, f"{self} cannot be blamed"
        self._has_verdict = True
        self._life.last_failure = why
        self._life.breaker.blame(may_open=self._may_open())
        self._on_change()

    def release(self) -> None:
        """Give the place back. Does nothing the second time."""
        if self._is_released:
            return
        self._is_released = True
        if not self._has_verdict:
            self._life.breaker.abandon()
        self._life.give_back(self._job)

    def _end(self) -> None:
        assert not self._has_verdict, f"{self} was judged before"
        assert not self._is_released, f"{self} was given back before"
        self._has_verdict = True
