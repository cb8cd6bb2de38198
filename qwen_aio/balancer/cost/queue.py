"""The requests that wait for a slot, and their order.

    requests that lost their worker      first: they have waited once
    requests that wait 30 s or longer    oldest first, so that none starves
    all others                           least work first, less 0.25 s for every second waited

Short before long costs the long ones little and saves the short ones almost all of their waiting.
Knows no worker.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from qwen_aio.balancer.params import Params
from qwen_aio.core import ContextLimits, EngineRequest, TaskKind


@dataclass(frozen=True)
class Compatibility:
    """What two workers must have in common for one to resume an answer of the other."""

    model_sha: str
    precision: str
    kernel: str
    task_hash: str
    context: ContextLimits  # they decide how a long prompt is truncated


@dataclass(eq=False)
class QueuedRequest:
    """One request on its way to a worker; owned by its executor, read by placement and queue."""

    number: int
    request: EngineRequest
    kind: TaskKind
    work_s: float  # reference seconds (cost_model.py)
    arrived: float  # of the clock
    deadline: float  # of the clock
    is_long: bool = False  # a decision that is predicted to take its worker many steps
    tried: set[str] = field(default_factory=set)  # ids of workers that do not get it again
    is_returned: bool = False  # it lost its worker
    needs: Compatibility | None = None  # set when it resumes an answer


class RequestQueue:
    """The requests for which no worker has a slot."""

    def __init__(self, params: Params) -> None:
        self._params = params
        self._requests: set[QueuedRequest] = set()

    def __repr__(self) -> str:
        return f"<RequestQueue {len(self)} waiting, {self.work_s:.1f} s of work>"

    def __len__(self) -> int:
        return len(self._requests)

    @property
    def work_s(self) -> float:
        """Reference seconds of all requests in the queue."""
        return sum(queued.work_s for queued in self._requests)

    def add(self, queued: QueuedRequest) -> None:
        """Let `queued` wait; the dispatcher has checked that there is room."""
        self._requests.add(queued)

    def remove(self, queued: QueuedRequest) -> None:
        """End the wait of `queued`; does nothing if it does not wait."""
        self._requests.discard(queued)

    def in_order(self, now: float) -> list[QueuedRequest]:
        """All requests in the queue, the next one first; `now` is of the clock."""
        return sorted(self._requests, key=lambda queued: self._rank(queued, now))

    def ahead_of_s(self, queued: QueuedRequest, now: float) -> float:
        """Reference seconds of the requests ahead of `queued`, which may not be in it yet."""
        rank = self._rank(queued, now)
        return sum(other.work_s for other in self._requests if self._rank(other, now) < rank)

    def _rank(self, queued: QueuedRequest, now: float) -> tuple[int, float, int]:
        waited_s = now - queued.arrived
        if queued.is_returned:
            return 0, queued.arrived, queued.number
        if waited_s >= self._params.oldest_first_after_s:
            return 1, queued.arrived, queued.number
        return 2, queued.work_s - self._params.ageing * waited_s, queued.number
