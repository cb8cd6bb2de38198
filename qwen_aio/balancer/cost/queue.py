"""Who waits for a place, and who is first in line.

    calls that lost their worker    first: they have waited once
    whoever waited beyond 30 s      oldest first, so that nobody starves
    everybody else                  least work first, less 0.25 s for every second waited

Short before long costs the long ones little and saves the short ones almost all their waiting (BALANCING 1). Knows no
worker. Owned by the event loop.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from qwen_aio.balancer.params import Params
from qwen_aio.core import ContextLimits, EngineRequest, TaskKind


@dataclass(frozen=True)
class Twin:
    """What a worker must have to go on with an answer that another one began."""

    model_sha: str
    precision: str
    task_hash: str
    context: ContextLimits  # they decide what of a long prompt was cut


@dataclass(eq=False)
class QueuedRequest:
    """One call on its way to a worker. Whoever makes the call owns it; pool and line only read it."""

    number: int
    call: EngineRequest
    kind: TaskKind
    work_s: float  # reference seconds (estimate.py)
    arrived: float  # of the clock
    deadline: float  # of the clock
    is_long: bool = False  # a decision that takes its worker many steps, as far as one can tell (estimate.py)
    tried: set[str] = field(default_factory=set)  # ids of workers that are not asked again
    is_returned: bool = False  # it lost its worker
    needs: Twin | None = None  # set when it goes on with an answer


class RequestQueue:
    """The jobs that no worker has a place for."""

    def __init__(self, rules: Params) -> None:
        self._rules = rules
        self._jobs: set[QueuedRequest] = set()

    def __repr__(self) -> str:
        return f"<WaitingLine {len(self)} waiting, {self.work_s:.1f} s of work>"

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def work_s(self) -> float:
        """Reference seconds of all that wait."""
        return sum(job.work_s for job in self._jobs)

    def add(self, job: QueuedRequest) -> None:
        """Let `job` wait; whether there is room is asked before (dispatcher.py)."""
        self._jobs.add(job)

    def remove(self, job: QueuedRequest) -> None:
        """`job` waits no longer; nothing happens if it does not wait."""
        self._jobs.discard(job)

    def in_order(self, now: float) -> list[QueuedRequest]:
        """All that wait, first one first; `now` is of the clock."""
        return sorted(self._jobs, key=lambda job: self._rank(job, now))

    def ahead_of_s(self, job: QueuedRequest, now: float) -> float:
        """Reference seconds of those who are let in before `job`, which need not wait yet."""
        rank = self._rank(job, now)
        return sum(other.work_s for other in self._jobs if self._rank(other, now) < rank)

    def _rank(self, job: QueuedRequest, now: float) -> tuple[int, float, int]:
        waited_s = now - job.arrived
        if job.is_returned:
            return 0, job.arrived, job.number
        if waited_s >= self._rules.oldest_first_after_s:
            return 1, job.arrived, job.number
        return 2, job.work_s - self._rules.ageing * waited_s, job.number
