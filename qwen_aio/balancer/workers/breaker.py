"""The circuit breaker of one worker: a worker that keeps failing gets no requests for a while.

    closed ──3 failures in a row, or half of at least 5──> open ──1 s, doubling to 30 s──> half-open
    half-open lets one attempt through: it goes well ──> closed, it fails ──> open, twice as long

Knows no worker and no HTTP: its owner calls it when an attempt begins and when it ends, each
exactly once, and decides what counts as a failure and whether one more breaker may open.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

from qwen_aio.balancer.params import Params
from qwen_aio.balancer.snapshot import BreakerState


class Breaker:
    """One per `Worker`. Every `begin` is followed by one of `succeed`, `fail` and `abandon`."""

    def __init__(self, params: Params, clock: Callable[[], float]) -> None:
        self._params = params
        self._clock = clock
        self._in_flight = 0
        self._has_trial = False
        self._half_open_at: float | None = None  # None: closed
        self._open_s = params.first_open_s  # how long it opens next time
        self._failures_in_a_row = 0
        self._ended: deque[tuple[float, bool]] = deque()  # in failure_memory_s: (when, failed)
        self._successes = 0.0  # fading, as of _counted_at
        self._failures = 0.0  # fading, as of _counted_at
        self._counted_at = clock()

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
        """Fading share of attempts that failed, 0 to less than 1; low after a single failure."""
        fade = self._fade()
        return self._failures * fade / ((self._failures + self._successes) * fade + 1)

    def allows(self) -> bool:
        return self.state == "closed" or (self.state == "half_open" and not self._has_trial)

    def begin(self) -> None:
        """An attempt starts; when half-open it is the trial."""
        assert self.allows(), f"{self} lets nothing through"
        self._has_trial = self.state == "half_open"
        self._in_flight += 1

    def succeed(self) -> None:
        """An attempt succeeded. Only a trial closes the breaker, no attempt from before."""
        self._failures_in_a_row = 0
        if self._has_trial and self.state == "half_open":
            self._close()
        self._count(has_failed=False)
        self._end()

    def fail(self, *, may_open: bool) -> None:
        """An attempt failed. Opens if the rule says so and `may_open`."""
        self.blame(may_open=may_open)
        self._end()

    def blame(self, *, may_open: bool) -> None:
        """As `fail`, for an abandoned attempt that turns out to have failed."""
        self._failures_in_a_row += 1
        self._count(has_failed=True)
        if may_open and (self.state == "half_open" or self._is_broken()):
            self._open()

    def abandon(self) -> None:
        """An attempt ended without an outcome: cancelled, or the request was at fault."""
        self._end()

    def _end(self) -> None:
        assert self._in_flight > 0, "an attempt ended that never began, or ended twice"
        self._in_flight -= 1
        # Which attempt ended is not known. While any runs the trial may be among them, and there
        # must not be two.
        if self._in_flight == 0:
            self._has_trial = False

    def _count(self, *, has_failed: bool) -> None:
        """Count an attempt that ended now, and forget those that are too old."""
        now, fade = self._clock(), self._fade()
        self._successes = self._successes * fade + (not has_failed)
        self._failures = self._failures * fade + has_failed
        self._counted_at = now
        self._ended.append((now, has_failed))
        while self._ended[0][0] <= now - self._params.failure_memory_s:
            self._ended.popleft()

    def _is_broken(self) -> bool:
        """Is it closed, and time to open?"""
        num_ended, num_failed = len(self._ended), sum(has_failed for _, has_failed in self._ended)
        is_share = num_ended >= self._params.breaker_samples and num_failed >= self._params.breaker_share * num_ended
        return self.state == "closed" and (is_share or self._failures_in_a_row >= self._params.breaker_failures)

    def _open(self) -> None:
        self._half_open_at = self._clock() + self._open_s
        self._open_s = min(2 * self._open_s, self._params.longest_open_s)
        self._has_trial = False

    def _close(self) -> None:
        """Start again: the failures that opened it are not counted twice."""
        self._half_open_at = None
        self._open_s = self._params.first_open_s
        self._ended.clear()

    def _fade(self) -> float:
        return math.exp(-(self._clock() - self._counted_at) / self._params.failure_memory_s)
