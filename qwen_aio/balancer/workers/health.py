"""What was heard of one life of a worker, and what to think of it.

    starting   it loads its model, or nothing was heard that could not be old
    up         its record moves, or tokens come from it
    suspect    its record stands still, or a call got nothing from it for too long
    down       it said so, its address refused us, or for long nothing at all was heard

A record proves life by moving, not by being there: the file may be old, and a worker whose engine hangs still answers
at /health. Knows neither calls nor what people want of the worker. Owned by the event loop.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from qwen_aio.balancer.params import Params
from qwen_aio.balancer.reasons import Reason
from qwen_aio.balancer.snapshot import HealthState
from qwen_aio.core import WorkerState, WorkerStatus

# A life goes through its states in this order and never back, so of two records with one `seq` the later is known.
STATES: tuple[WorkerState, ...] = ("starting", "ready", "draining", "failed")
STANDING: dict[HealthState, int] = {"down": 0, "suspect": 0, "starting": 1, "up": 2}
SILENCE = 3  # times as long as a record may stand still, then a worker of which nothing is heard is given up


@dataclass(frozen=True)
class HealthStatus:
    """What to think of a worker, and one English sentence why."""

    health: HealthState
    why: str


class HeartbeatReader:
    """One per worker life."""

    def __init__(self, rules: Params, clock: Callable[[], float]) -> None:
        self.status: WorkerStatus | None = None  # the newest record
        self.news_at = -math.inf  # when that came
        self._read: WorkerStatus | None = None  # the last one that came from the file
        self._rules = rules
        self._clock = clock
        self._heard_at = clock()  # the last sign of any kind; not having begun to listen yet is no silence
        self._moved_at: float | None = None  # when `seq` went up, or the first answer came
        self._flowed_at: float | None = None  # when the last token or decision came
        self._refusal: str | None = None
        self._refused_at = 0.0  # means something only with a refusal
        self._is_stalled = False

    def __repr__(self) -> str:
        return f"<Pulse {self.finding.health}: {self.finding.why}>"

    @property
    def finding(self) -> HealthStatus:
        """What to think at this moment."""
        state = self.status.state if self.status else None
        if state == "failed":
            return HealthStatus("down", Reason("engine_failed"))
        if state == "draining":
            return HealthStatus("down", Reason("shutting_down"))
        if self._refusal is not None:
            return HealthStatus("down", self._refusal)
        if self.silent_s >= SILENCE * self._rules.stale_after_s:
            return HealthStatus("down", Reason("silent", seconds=self.silent_s))
        if state is None:
            return HealthStatus("starting", Reason("never_heard"))
        if self.status_age_s is None:
            return HealthStatus("starting", Reason("old_record"))
        if state == "starting":
            return HealthStatus("starting", Reason("loading"))
        return self._liveliness(self.status_age_s)

    @property
    def standing(self) -> int:
        """How good a holder of its id it is: 2 if it is up, 1 if it is known to be starting, else 0."""
        return STANDING[self.finding.health] if self.status_age_s is not None else 0

    @property
    def status_age_s(self) -> float | None:
        """Seconds since its record moved; None if it never did."""
        return self._clock() - self._moved_at if self._moved_at is not None else None

    @property
    def silent_s(self) -> float:
        """Seconds since the last sign of any kind."""
        return self._clock() - self._heard_at

    @property
    def is_frozen(self) -> bool:
        """Its record stands still, whether tokens come from it or not."""
        return (self.status_age_s or 0.0) >= self._rules.stale_after_s

    def hear(self, status: WorkerStatus, *, asked_at: float | None = None) -> bool:
        """A record of this life was read, or given by the worker itself when asked at `asked_at`. Whether it is news.

        What is read may come late, come twice, or not be what the worker wrote. What the worker says itself counts,
        whatever its `seq`, if it was asked after all else was heard.
        """
        if asked_at is None:
            if status == self._read:
                return False
            self._read = status
        before = self.status
        is_last_word = asked_at is not None and asked_at > self.news_at
        if before is not None and _age(status) <= _age(before) and not (is_last_word and _age(status) != _age(before)):
            return False
        self.status, self.news_at = status, self._clock()
        if before is not None and status.seq != before.seq:
            self._move()
        return True

    def answer(self) -> None:
        """It answered a question: somebody is there. That alone does not make a record move that stands still."""
        self._refusal = None
        self._heard_at = self._clock()
        if self._moved_at is None:
            self._moved_at = self._clock()

    def refuse(self, why: str) -> None:
        """Nobody is there."""
        self._refusal = why
        self._refused_at = self._clock()

    def flow(self) -> None:
        """A token or a decision came."""
        self._heard_at = self._flowed_at = self._clock()
        self._is_stalled = False

    def stall(self) -> None:
        """A call got nothing for too long."""
        self._is_stalled = True

    def forgive(self) -> None:
        """Forget a stall, since no call is left that could prove it wrong."""
        self._is_stalled = False

    def _liveliness(self, status_age_s: float) -> HealthStatus:
        if self._is_stalled:
            return HealthStatus("suspect", Reason("stalled"))
        if not self.is_frozen:
            return HealthStatus("up", Reason("reports"))
        if self._flowed_at is not None and self._clock() - self._flowed_at < self._rules.stale_after_s:
            return HealthStatus("up", Reason("frozen_but_serving", seconds=status_age_s))
        return HealthStatus("suspect", Reason("frozen", seconds=status_age_s))

    def _move(self) -> None:
        if self._refusal is not None and self._clock() - self._refused_at < self._rules.report_period_s:
            return  # it may have been written just before the end
        self._refusal = None
        self._heard_at = self._moved_at = self._clock()


def _age(status: WorkerStatus) -> tuple[int, int]:
    return status.seq, STATES.index(status.state)
