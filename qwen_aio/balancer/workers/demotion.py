"""Whether a worker's reports are slow enough, often enough, for it to get new work last (BALANCING 4).

Knows one worker's reports and nothing of the others: how many may be demoted at once is the pool's to say.
Owned by the event loop.
"""

from __future__ import annotations

from collections.abc import Callable

from qwen_aio.balancer.params import Params


class Demotion:
    """One per worker life."""

    def __init__(self, rules: Params, clock: Callable[[], float]) -> None:
        self.wants = False  # its own reports demand it
        self.slow_ms = 0.0  # of the last report that counted
        self._rules = rules
        self._clock = clock
        self._completed = 0  # as of the last report that counted
        self._slow_in_a_row = 0
        self._good_in_a_row = 0
        self._probe_at = 0.0  # of the clock; means something only while `wants`
        self._probe_pause_s = rules.first_probe_s  # from the last probe to the next one

    def __repr__(self) -> str:
        return f"<Demotion wants={self.wants}, {self._slow_in_a_row} slow, {self._good_in_a_row} good in a row>"

    def report(self, *, completed: int, slow_ms: float | None) -> None:
        """A record was read. It counts only if work was finished since the last one that counted."""
        if slow_ms is None or completed <= self._completed:
            return
        self._completed = completed
        self.slow_ms = slow_ms
        is_slow = slow_ms > self._rules.slow_ms
        self._slow_in_a_row = self._slow_in_a_row + 1 if is_slow else 0
        self._good_in_a_row = 0 if is_slow else self._good_in_a_row + 1
        if not self.wants and self._slow_in_a_row >= self._rules.slow_reports:
            self._begin()
        elif self._good_in_a_row >= self._rules.good_reports:
            self.wants = False

    def probe_due(self) -> bool:
        """Is it time for one short request, so that an idle worker can prove itself?"""
        return self.wants and self._clock() >= self._probe_at

    def probe_sent(self) -> None:
        """The probe is on its way; the next one waits twice as long."""
        self._probe_pause_s = min(2 * self._probe_pause_s, self._rules.longest_probe_s)
        self._probe_at = self._clock() + self._probe_pause_s

    def _begin(self) -> None:
        self.wants = True
        self._probe_pause_s = self._rules.first_probe_s
        self._probe_at = self._clock() + self._probe_pause_s
