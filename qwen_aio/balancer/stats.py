"""What has happened lately, for people who watch: the last requests and events, the charts, and who is looking on.

Knows no HTTP. Owned by the event loop; nothing here awaits but `listen`. All of it is bounded: what is old is
forgotten, and an onlooker who reads too slowly is let go and must begin again.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from dataclasses import dataclass

from qwen_aio.balancer.snapshot import EventRow, RequestOutcome, RequestRow, Sample, Snapshot
from qwen_aio.errors import Draining, QwenAioError
from qwen_aio.wire.error import http_status

MAX_REQUESTS = 1000
MAX_EVENTS = 500
MOMENT_S = 2.0
MAX_MOMENTS = 450  # 15 minutes
MAX_BEHIND = 1000  # pieces of news that wait for one onlooker
PACE_S = 0.1  # between two batches: a page shows no more than ten changes a second


@dataclass(frozen=True)
class StatsHistory:
    """All that is remembered, oldest first."""

    moments: tuple[Sample, ...]
    requests: tuple[RequestRow, ...]
    events: tuple[EventRow, ...]


News = StatsHistory | Snapshot | Sample | RequestRow | EventRow


class Stats:
    """The memory of one balancer since it started."""

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, wall_clock: Callable[[], float] = time.time
    ) -> None:
        self._clock = clock
        self._wall_clock = wall_clock
        self._requests: deque[RequestRow] = deque(maxlen=MAX_REQUESTS)
        self._events: deque[EventRow] = deque(maxlen=MAX_EVENTS)
        self._moments: deque[Sample] = deque(maxlen=MAX_MOMENTS)
        self._num_requests = 0
        self._num_failures = 0
        self._num_events = 0
        self._period = _Period(clock())
        self._snapshot: Snapshot | None = None  # the last one
        self._onlookers: set[_Onlooker] = set()
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<Board {self._num_requests} requests, {self._num_events} events, {len(self._onlookers)} looking on>"

    @property
    def num_requests(self) -> int:
        """Calls that have ended, also those that were refused or given up."""
        return self._num_requests

    @property
    def num_failures(self) -> int:
        """Those of them that failed, through no fault of the caller."""
        return self._num_failures

    @property
    def num_subscribers(self) -> int:
        """Who listens now."""
        return len(self._onlookers)

    def record(
        self,
        *,
        request_id: str,
        task: str,
        worker: str,
        why: str,
        attempts: int,
        queue_ms: float,
        total_ms: float,
        tokens: int,
        error: BaseException | None,
    ) -> None:
        """One call has ended; `error` is what ended it, if it was not done."""
        outcome, code = _outcome(error)
        self._num_requests += 1
        self._num_failures += outcome == "failed"
        self._period.add(total_ms if outcome == "ok" else None)
        row = RequestRow(
            number=self._num_requests,
            time=self._wall_clock(),
            id=request_id,
            task=task,
            worker=worker,
            why=why,
            attempts=attempts,
            queue_ms=queue_ms,
            total_ms=total_ms,
            tokens=tokens,
            outcome=outcome,
            error=code,
        )
        self._requests.append(row)
        self._tell(row)

    def event(self, worker: str, actor: str, change: str, why: str) -> None:
        """The state of a worker has changed (in the order in which the pool tells it)."""
        self._num_events += 1
        row = EventRow(self._num_events, self._wall_clock(), worker, actor, change, why)
        self._events.append(row)
        self._tell(row)

    def tick(self, snapshot: Snapshot) -> None:
        """Show `snapshot` to everybody, and when it is time add a point to the charts. Called about once a second."""
        self._snapshot = snapshot
        self._tell(snapshot)
        now = self._clock()
        if now - self._period.began < MOMENT_S * 0.75:  # ticks are not exact: the nearest one to the full period
            return
        moment = self._period.finished(now, snapshot)
        self._period = _Period(now)
        self._moments.append(moment)
        self._tell(moment)

    def history(self) -> StatsHistory:
        """All that is remembered."""
        return StatsHistory(tuple(self._moments), tuple(self._requests), tuple(self._events))

    async def listen(self) -> AsyncGenerator[tuple[News, ...], None]:
        """All that is remembered, then what comes, in batches; ends for a reader who falls behind, and with `close`.

        Raises Draining after `close`.
        """
        if self._is_closed:
            raise Draining("this balancer is shutting down", retry_after_s=2)
        onlooker = _Onlooker([self.history(), *([self._snapshot] if self._snapshot else [])])
        self._onlookers.add(onlooker)
        try:
            while news := await onlooker.news():
                yield news
                await asyncio.sleep(PACE_S)
        finally:
            self._onlookers.discard(onlooker)

    def close(self) -> None:
        """Let go of everybody who listens."""
        self._is_closed = True
        for onlooker in self._onlookers:
            onlooker.end()

    def _tell(self, news: News) -> None:
        for onlooker in self._onlookers:
            onlooker.tell(news)


class _Onlooker:
    """What one reader has still to fetch."""

    def __init__(self, first: Iterable[News]) -> None:
        self._waiting: list[News] = list(first)
        self._has_news = asyncio.Event()
        self._has_news.set()
        self._is_over = False

    def tell(self, news: News) -> None:
        if len(self._waiting) >= MAX_BEHIND:
            self.end()
        if not self._is_over:
            self._waiting.append(news)
            self._has_news.set()

    def end(self) -> None:
        self._is_over = True
        self._waiting.clear()
        self._has_news.set()

    async def news(self) -> tuple[News, ...]:
        """What has come since the last time, at least one piece; nothing when it is over."""
        await self._has_news.wait()
        if self._is_over:
            return ()
        self._has_news.clear()
        news, self._waiting = tuple(self._waiting), []
        return news


class _Period:
    """The calls that ended since `began` (seconds of the clock)."""

    def __init__(self, began: float) -> None:
        self.began = began
        self._num_ended = 0
        self._done_ms: list[float] = []

    def add(self, done_ms: float | None) -> None:
        """A call has ended; None if it was not done, since a quick refusal says nothing about speed."""
        self._num_ended += 1
        if done_ms is not None:
            self._done_ms.append(done_ms)

    def finished(self, now: float, snapshot: Snapshot) -> Sample:
        done_ms = sorted(self._done_ms)
        return Sample(
            time=snapshot.time,
            requests_per_s=self._num_ended / (now - self.began),
            p50_ms=_percentile(done_ms, 0.5),
            p95_ms=_percentile(done_ms, 0.95),
            waiting=snapshot.waiting,
            cpu_percent={row.id: row.cpu_percent for row in snapshot.workers},
            in_flight={row.id: row.in_flight for row in snapshot.workers},
        )


def _percentile(ordered: Sequence[float], share: float) -> float | None:
    """The smallest value that at least `share` of all do not exceed."""
    return ordered[math.ceil(share * len(ordered)) - 1] if ordered else None


def _outcome(error: BaseException | None) -> tuple[RequestOutcome, str]:
    """How a call ended that ended with `error`, and the error's code."""
    if error is None:
        return "ok", ""
    if not isinstance(error, Exception):  # CancelledError, GeneratorExit: nobody waits any more
        return "cancelled", ""
    code = error.code if isinstance(error, QwenAioError) else QwenAioError.code
    return "refused" if isinstance(error, QwenAioError) and http_status(error) < 500 else "failed", code
