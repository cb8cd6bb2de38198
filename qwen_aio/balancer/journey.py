"""One call on its way: what has been sent on, whom it met, and what it may still try."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, replace

from qwen_aio.balancer.pool import Seat
from qwen_aio.balancer.queue import Job
from qwen_aio.core import Answer, Call, Decision, Kind, Piece


@dataclass(eq=False)
class Journey:
    """Owned by the one coroutine that makes the call."""

    call: Call
    job: Job
    began: float  # of the clock
    seat: Seat | None = None  # the last one
    attempts: int = 0
    waited_s: float = 0.0  # in the line, all attempts together
    num_failures: int = 0  # attempts that count: being sent on by a worker that shuts down is none
    num_deaths: int = 0  # workers that died under it
    parts: list[str] = field(default_factory=list)  # text that was sent on
    token_ids: list[int] = field(default_factory=list)

    @property
    def next_call(self) -> Call:
        """What the next worker is asked: to go on behind what was sent."""
        return replace(self.call, resume=tuple(self.token_ids))

    def add(self, piece: Piece) -> None:
        """Remember what is sent on."""
        self.parts.append(piece.text)
        self.token_ids.extend(piece.token_ids)

    def finished(self, last: Decision | Answer, *, now: float) -> Decision | Answer:
        """`last` with the whole text, and the time from beginning to end with what was spent in the line."""
        waited_ms = self.waited_s * 1000
        timings = replace(last.timings, queue_ms=last.timings.queue_ms + waited_ms, total_ms=(now - self.began) * 1000)
        if isinstance(last, Decision):
            return replace(last, timings=timings)
        return replace(last, text="".join(self.parts).strip(), timings=timings)


def seeded(call: Call, kind: Kind) -> Call:
    """`call` with a seed of its own, so that another worker can go on with what one began."""
    if kind == "decision" or call.sampling.seed is not None:
        return call
    return replace(call, sampling=replace(call.sampling, seed=secrets.randbits(63)))
