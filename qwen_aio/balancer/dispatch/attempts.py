"""One call on its way: what has been sent on, whom it met, and what it may still try."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, replace

from qwen_aio.balancer.cost.queue import QueuedRequest
from qwen_aio.balancer.dispatch.slot import Slot
from qwen_aio.core import Answer, Decision, EngineRequest, TaskKind, TextDelta

LEAST_LEFT_S = 0.001  # a call must be given some time


@dataclass(eq=False)
class RetryState:
    """Owned by the one coroutine that makes the call."""

    call: EngineRequest
    job: QueuedRequest
    began: float  # of the clock
    deadline: float  # of the clock; the job's own may be earlier
    seat: Slot | None = None  # the last one
    attempts: int = 0
    waited_s: float = 0.0  # in the line, all attempts together ...
    waits_since: float | None = None  # ... and since when it is there now
    num_failures: int = 0  # attempts that count: being sent on by a worker that shuts down is none
    num_deaths: int = 0  # workers that died under it
    doubted: Slot | None = None  # where it failed, and it is open whether the worker or the request is at fault
    parts: list[str] = field(default_factory=list)  # text that was sent on
    token_ids: list[int] = field(default_factory=list)

    def next_call(self, *, now: float) -> EngineRequest:
        """What the next worker is asked: to go on behind what was sent, in the time that is left."""
        return replace(self.call, resume=tuple(self.token_ids), timeout_s=max(self.deadline - now, LEAST_LEFT_S))

    def wait(self, *, now: float) -> None:
        """It waits for a place from now on."""
        self.waits_since = now

    def sit(self, seat: Slot, *, now: float) -> None:
        """It has got one."""
        self.stand(now=now)
        self.attempts += 1
        self.seat = seat

    def stand(self, *, now: float) -> None:
        """It waits no longer, whether it has got a place or not."""
        if self.waits_since is not None:
            self.waited_s += now - self.waits_since
            self.waits_since = None

    def add(self, piece: TextDelta) -> None:
        """Remember what is sent on."""
        self.parts.append(piece.text)
        self.token_ids.extend(piece.token_ids)

    def finished(self, last: Decision | Answer, *, now: float) -> Decision | Answer:
        """`last` with the whole text, and the time from beginning to end with what was spent in the line."""
        waited_ms = self.waited_s * 1000
        timings = replace(last.timings, queue_ms=last.timings.queue_ms + waited_ms, total_ms=(now - self.began) * 1000)
        if isinstance(last, Decision):
            return replace(last, timings=timings)
        return replace(last, text="".join(self.parts), timings=timings)


def seeded(call: EngineRequest, kind: TaskKind) -> EngineRequest:
    """`call` with a seed of its own, so that another worker can go on with what one began."""
    if kind == "decision" or call.sampling.seed is not None:
        return call
    return replace(call, sampling=replace(call.sampling, seed=secrets.randbits(63)))
