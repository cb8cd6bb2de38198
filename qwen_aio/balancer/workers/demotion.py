"""Whether a worker's reports are slow enough, often enough, for it to get new requests last.

Knows one worker's reports alone: the registry limits how many are demoted at once.
"""

from __future__ import annotations

from collections.abc import Callable

from qwen_aio.balancer.params import Params


class Demotion:
    """One per `Worker`."""

    def __init__(self, params: Params, clock: Callable[[], float]) -> None:
        self.is_wanted = False  # the worker's own reports call for it
        self.slow_ms = 0.0  # of the last report that counted
        self._params = params
        self._clock = clock
        self._completed = 0  # as of the last report that counted
        self._slow_in_a_row = 0
        self._good_in_a_row = 0
        self._probe_at = 0.0  # of the clock; valid only while `is_wanted`
        self._probe_pause_s = params.first_probe_s  # from the last probe to the next one

    def __repr__(self) -> str:
        return f"<Demotion {self.is_wanted}, {self._slow_in_a_row} slow, {self._good_in_a_row} good in a row>"

    def report(self, *, completed: int, slow_ms: float | None) -> None:
        """Take in a report. It counts if requests were completed since the last that counted."""
        if slow_ms is None or completed <= self._completed:
            return
        self._completed = completed
        self.slow_ms = slow_ms
        is_slow = slow_ms > self._params.slow_ms
        self._slow_in_a_row = self._slow_in_a_row + 1 if is_slow else 0
        self._good_in_a_row = 0 if is_slow else self._good_in_a_row + 1
        if not self.is_wanted and self._slow_in_a_row >= self._params.slow_reports:
            self.is_wanted = True
            self._await_probe(self._params.first_probe_s)
        elif self._good_in_a_row >= self._params.good_reports:
            self.is_wanted = False

    def probe_due(self) -> bool:
        """Is it time for one short request, so that an idle worker can prove itself?"""
        return self.is_wanted and self._clock() >= self._probe_at

    def probe_sent(self) -> None:
        """The probe is on its way; the next one waits twice as long."""
        self._await_probe(min(2 * self._probe_pause_s, self._params.longest_probe_s))

    def _await_probe(self, pause_s: float) -> None:
        self._probe_pause_s = pause_s
        self._probe_at = self._clock() + pause_s
