"""The health of one worker process, from its reports, its answers and its tokens.

    starting   it loads its model, or all that was heard of it may be old
    up         its report moves, or tokens come from it
    suspect    its report stands still, or a request got nothing from it for too long
    down       it said so, its address refuses connections, or nothing was heard for long

A report proves life by moving, not by existing: the file may be old, and a worker whose engine
hangs still answers at /health. Knows neither requests nor administrative states.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from qwen_aio.balancer.params import Params
from qwen_aio.balancer.reasons import (
    ENGINE_FAILED,
    FROZEN,
    FROZEN_BUT_SERVING,
    LOADING,
    NEVER_HEARD,
    OLD_REPORT,
    REPORTS,
    SHUTTING_DOWN,
    SILENT,
    STALLED,
    Reason,
)
from qwen_aio.balancer.snapshot import HealthState
from qwen_aio.status.record import WorkerState, WorkerStatus

# A process goes through its states in this order and never back, which orders two reports with one
# `seq`.
STATES: tuple[WorkerState, ...] = ("starting", "ready", "draining", "failed")
STANDING: dict[HealthState, int] = {"down": 0, "suspect": 0, "starting": 1, "up": 2}
SILENCE_FACTOR = 3  # a worker that is silent for so many times `stale_after_s` is down


@dataclass(frozen=True)
class HealthStatus:
    """The health of a worker, and one English sentence why."""

    state: HealthState
    why: str


UP = HealthStatus("up", Reason(REPORTS))  # asked for many times a request, so made once


class HeartbeatReader:
    """One per `Worker`."""

    def __init__(self, params: Params, clock: Callable[[], float]) -> None:
        self.status: WorkerStatus | None = None  # the newest report
        self.news_at = -math.inf  # when it came
        self._read: WorkerStatus | None = None  # the last one from the file
        self._params = params
        self._clock = clock
        self._heard_at = clock()  # the last sign of any kind; at first, the start
        self._moved_at: float | None = None  # when `seq` went up, or the first answer came
        self._flowed_at: float | None = None  # when the last token or decision came
        self._refusal: str | None = None
        self._refused_at = 0.0  # valid only with a refusal
        self._is_stalled = False

    def __repr__(self) -> str:
        return f"<HeartbeatReader {self.health.state}: {self.health.why}>"

    @property
    def health(self) -> HealthStatus:
        state = self.status.state if self.status else None
        if state == "failed":
            return HealthStatus("down", Reason(ENGINE_FAILED))
        if state == "draining":
            return HealthStatus("down", Reason(SHUTTING_DOWN))
        if self._refusal is not None:
            return HealthStatus("down", self._refusal)
        if self.silent_s >= SILENCE_FACTOR * self._params.stale_after_s:
            return HealthStatus("down", Reason(SILENT, seconds=self.silent_s))
        if state is None:
            return HealthStatus("starting", Reason(NEVER_HEARD))
        if self.status_age_s is None:
            return HealthStatus("starting", Reason(OLD_REPORT))
        if state == "starting":
            return HealthStatus("starting", Reason(LOADING))
        return self._liveliness(self.status_age_s)

    @property
    def standing(self) -> int:
        """Its claim to its id: 2 if it is up, 1 if it is known to be starting, else 0."""
        return STANDING[self.health.state] if self.status_age_s is not None else 0

    @property
    def status_age_s(self) -> float | None:
        """Seconds since its report moved; None if it never did."""
        return self._clock() - self._moved_at if self._moved_at is not None else None

    @property
    def silent_s(self) -> float:
        """Seconds since the last sign of any kind."""
        return self._clock() - self._heard_at

    @property
    def is_frozen(self) -> bool:
        """Does its report stand still, whether tokens come from it or not?"""
        return (self.status_age_s or 0.0) >= self._params.stale_after_s

    def hear(self, status: WorkerStatus, *, asked_at: float | None = None) -> bool:
        """Take in a report from the file, or given at `asked_at`. Returns whether it is new.

        A report from the file may come late, twice or damaged. A report given by the worker counts
        whatever its `seq`, if the worker was asked after everything else was heard.
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
        """It answered a question, so it is there. That alone does not make its report move."""
        self._refusal = None
        self._heard_at = self._clock()
        if self._moved_at is None:
            self._moved_at = self._clock()

    def refuse(self, why: str) -> None:
        """It is gone, or takes no requests any more."""
        self._refusal = why
        self._refused_at = self._clock()

    def flow(self) -> None:
        """A token or a decision came."""
        self._heard_at = self._flowed_at = self._clock()
        self._is_stalled = False

    def stall(self) -> None:
        """A request got nothing for too long."""
        self._is_stalled = True

    def forgive(self) -> None:
        """Forget a stall, since no request is left that could disprove it."""
        self._is_stalled = False

    def _liveliness(self, status_age_s: float) -> HealthStatus:
        if self._is_stalled:
            return HealthStatus("suspect", Reason(STALLED))
        if not self.is_frozen:
            return UP
        if self._flowed_at is not None and self._clock() - self._flowed_at < self._params.stale_after_s:
            return HealthStatus("up", Reason(FROZEN_BUT_SERVING, seconds=status_age_s))
        return HealthStatus("suspect", Reason(FROZEN, seconds=status_age_s))

    def _move(self) -> None:
        if self._refusal is not None and self._clock() - self._refused_at < self._params.report_period_s:
            return  # it may have been written just before the end
        self._refusal = None
        self._heard_at = self._moved_at = self._clock()


def _age(status: WorkerStatus) -> tuple[int, int]:
    return status.seq, STATES.index(status.state)
