"""Whether a worker that keeps failing is asked at all.

    closed ──three failures in a row, or half of at least five──> open ──1 s, doubling to 30 s──> half-open
    half-open lets exactly one attempt through: it goes well ──> closed, it fails ──> open again, for twice as long

Knows no worker and no HTTP: it hears when an attempt begins and how it ends, each exactly once. What counts as a
failure, and whether one more worker may be shut out, is its owner's to say. Owned by the event loop.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

from qwen_aio.balancer.params import Params
from qwen_aio.balancer.snapshot import BreakerState


class Breaker:
    """One per worker life. Every `begin` is followed by one of `succeed`, `fail` and `abandon`."""

    def __init__(self, rules: Params, clock: Callable[[], float]) -> None:
        self._rules = rules
        self._clock = clock
        self._in_flight = 0
        self._is_trial_out = False
        self._half_open_at: float | None = None  # None: closed
        self._open_s = rules.first_open_s  # how long it opens next time
        self._failures_in_a_row = 0
        self._ended_at: deque[float] = deque()  # verdicts of the last failure_memory_s ...
        self._failed_at: deque[float] = deque()  # ... and those of them that were failures
        self._successes = 0.0  # fading, as of _weighed_at
        self._failures = 0.0  # fading, as of _weighed_at
        self._weighed_at = clock()

    def __repr__(self) -> str:
        return f"<Breaker {self.state}, {self._in_flight} in flight, failure rate {self.failure_rate:.2f}>"

    @property
    def state(self) -> BreakerState:
        """An open one becomes half-open by the clock alone."""
        if self._half_open_at is None:
            return "closed"
        return "open" if self._clock() < self._half_open_at else "half_open"

    @property
    def retry_in_s(self) -> float:
        """Seconds until it is half-open; 0 if it is not open."""
        return max(self._half_open_at - self._clock(), 0.0) if self._half_open_at is not None else 0.0

    @property
    def failure_rate(self) -> float:
        """Share of attempts that failed, 0 to less than 1. It fades, and one failure alone does not make it high."""
        fade = self._fade()
        return self._failures * fade / ((self._failures + self._successes) * fade + 1)

    def allows(self) -> bool:
        """May an attempt begin now?"""
        return self.state == "closed" or (self.state == "half_open" and not self._is_trial_out)

    def begin(self) -> None:
        """An attempt starts; when half-open it is the trial."""
        assert self.allows(), f"{self} lets nothing through"
        self._is_trial_out = self.state == "half_open"
        self._in_flight += 1

    def succeed(self) -> None:
        """An attempt went well. Only a trial closes: what began before the opening says nothing about now."""
        self._end()
        self._weigh(successes=1)
        self._failures_in_a_row = 0
        if self._is_trial_out and self.state == "half_open":
            self._close()
        self._count(self._ended_at)
        self._take_trial_back()

    def fail(self, *, may_open: bool) -> None:
        """An attempt failed. Opens if the rule says so and `may_open`."""
        self._end()
        self.blame(may_open=may_open)
        self._take_trial_back()

    def blame(self, *, may_open: bool) -> None:
        """As `fail`, of an attempt that was abandoned and turns out to have failed."""
        self._weigh(failures=1)
        self._failures_in_a_row += 1
        self._count(self._ended_at, self._failed_at)
        if may_open and (self.state == "half_open" or self._is_broken()):
            self._open()

    def abandon(self) -> None:
        """An attempt ended without saying anything about the worker: cancelled, or refused for its own faults."""
        self._end()
        self._take_trial_back()

    def _end(self) -> None:
        assert self._in_flight > 0, "an attempt ended that never began, or ended twice"
        self._in_flight -= 1

    def _take_trial_back(self) -> None:
        # It is not known which attempt ended. While any is left the trial may be among them, and two must not be out.
        if self._in_flight == 0:
            self._is_trial_out = False

    def _count(self, *counted: deque[float]) -> None:
        """Add this moment to `counted`, and let go of what is too old to count."""
        for times in counted:
            times.append(self._clock())
        for times in (self._ended_at, self._failed_at):
            while times and times[0] <= self._clock() - self._rules.failure_memory_s:
                times.popleft()

    def _is_broken(self) -> bool:
        """While closed: is it time to open?"""
        num_ended, num_failed = len(self._ended_at), len(self._failed_at)
        is_share = num_ended >= self._rules.breaker_samples and num_failed >= self._rules.breaker_share * num_ended
        return self.state == "closed" and (is_share or self._failures_in_a_row >= self._rules.breaker_failures)

    def _open(self) -> None:
        self._half_open_at = self._clock() + self._open_s
        self._open_s = min(2 * self._open_s, self._rules.longest_open_s)
        self._is_trial_out = False

    def _close(self) -> None:
        """Begin anew: what led to the opening is not counted twice."""
        self._half_open_at = None
        self._open_s = self._rules.first_open_s
        self._ended_at.clear()
        self._failed_at.clear()

    def _weigh(self, *, successes: int = 0, failures: int = 0) -> None:
        fade = self._fade()
        self._successes = self._successes * fade + successes
        self._failures = self._failures * fade + failures
        self._weighed_at = self._clock()

    def _fade(self) -> float:
        return math.exp(-(self._clock() - self._weighed_at) / self._rules.failure_memory_s)
