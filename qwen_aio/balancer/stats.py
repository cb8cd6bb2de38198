"""The recent past for the dashboard: requests, events and charts, and the subscribers to news.

Knows no HTTP. Nothing here awaits but `listen`. All of it is bounded: old rows are dropped, and so
is a subscriber that reads too slowly; it may subscribe again.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from qwen_aio.balancer.snapshot import EventRow, RequestOutcome, RequestRow, Sample, Snapshot
from qwen_aio.errors import Draining, QwenAioError
from qwen_aio.wire.error import http_status

MAX_REQUESTS = 1000
MAX_EVENTS = 500
SAMPLE_S = 2.0
MAX_SAMPLES = 450  # 15 minutes
MAX_PENDING = 1000  # news that wait for one subscriber
PACE_S = 0.1  # between two batches: a page gets at most ten updates a second


@dataclass(frozen=True)
class StatsHistory:
    """All that is kept, oldest first."""

    moments: tuple[Sample, ...]
    """Points of the charts, one every two seconds."""
    requests: tuple[RequestRow, ...]
    """Engine requests that have ended."""
    events: tuple[EventRow, ...]
    """Changes of workers' states."""


News = StatsHistory | Snapshot | Sample | RequestRow | EventRow


class Stats:
    """What one balancer keeps of its past."""

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, wall_clock: Callable[[], float] = time.time
    ) -> None:
        self._clock = clock
        self._wall_clock = wall_clock
        self._requests: deque[RequestRow] = deque(maxlen=MAX_REQUESTS)
        self._events: deque[EventRow] = deque(maxlen=MAX_EVENTS)
        self._samples: deque[Sample] = deque(maxlen=MAX_SAMPLES)
        self.num_requests = 0  # engine requests that have ended, also refused and cancelled ones
        self.num_failures = 0  # those that failed through no fault of the client
        self._num_events = 0
        self._period = _Period(clock())
        self._snapshot: Snapshot | None = None  # the last one
        self._subscribers: set[_Subscriber] = set()
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<Stats {self.num_requests} requests, {self._num_events} events, {len(self._subscribers)} subscribers>"

    @property
    def num_subscribers(self) -> int:
        return len(self._subscribers)

    def record(self, row: RequestRow, error: BaseException | None) -> None:
        """An engine request has ended, with `error` if it was not done."""
        outcome, code = _outcome(error)
        self.num_requests += 1
        self.num_failures += outcome == "failed"
        self._period.num_ended += 1
        if outcome == "ok":
            self._period.done_ms.append(row.total_ms)
        row = replace(row, number=self.num_requests, time=self._wall_clock(), outcome=outcome, error=code)
        self._requests.append(row)
        self._publish(row)

    def event(self, worker: str, actor: str, change: str, why: str) -> None:
        """The state of a worker has changed; an OnEvent of the event log."""
        self._num_events += 1
        row = EventRow(self._num_events, self._wall_clock(), worker, actor, change, why)
        self._events.append(row)
        self._publish(row)

    def tick(self, snapshot: Snapshot) -> None:
        """Publish `snapshot`, and in time a point of the charts. Called once a second."""
        self._snapshot = snapshot
        self._publish(snapshot)
        now = self._clock()
        if now - self._period.began < SAMPLE_S * 0.75:  # the tick nearest to the full period
            return
        sample = self._period.finished(now, snapshot)
        self._period = _Period(now)
        self._samples.append(sample)
        self._publish(sample)

    def history(self) -> StatsHistory:
        return StatsHistory(tuple(self._samples), tuple(self._requests), tuple(self._events))

    async def listen(self) -> AsyncGenerator[tuple[News, ...], None]:
        """All that is kept, then news in batches; ends with `close`, or if a subscriber is slow.

        Raises Draining after `close`.
        """
        if self._is_closed:
            raise Draining("this balancer is shutting down", retry_after_s=2)
        subscriber = _Subscriber([self.history(), *([self._snapshot] if self._snapshot else [])])
        self._subscribers.add(subscriber)
        try:
            while news := await subscriber.news():
                yield news
                await asyncio.sleep(PACE_S)
        finally:
            self._subscribers.discard(subscriber)

    def close(self) -> None:
        self._is_closed = True
        for subscriber in self._subscribers:
            subscriber.end()

    def _publish(self, news: News) -> None:
        for subscriber in self._subscribers:
            subscriber.add(news)


class _Subscriber:
    """The news that one reader has not fetched yet."""

    def __init__(self, first: Iterable[News]) -> None:
        self._pending: list[News] = list(first)
        self._has_news = asyncio.Event()
        self._has_news.set()
        self._is_over = False

    def add(self, news: News) -> None:
        if len(self._pending) >= MAX_PENDING:
            self.end()
        if not self._is_over:
            self._pending.append(news)
            self._has_news.set()

    def end(self) -> None:
        self._is_over = True
        self._pending.clear()
        self._has_news.set()

    async def news(self) -> tuple[News, ...]:
        """The news since the last time, at least one; empty at the end."""
        await self._has_news.wait()
        if self._is_over:
            return ()
        self._has_news.clear()
        news, self._pending = tuple(self._pending), []
        return news


@dataclass
class _Period:
    """The engine requests that ended since `began` (of the clock)."""

    began: float
    num_ended: int = 0
    done_ms: list[float] = field(default_factory=list)  # refusals say nothing about speed

    def finished(self, now: float, snapshot: Snapshot) -> Sample:
        done_ms = sorted(self.done_ms)
        return Sample(
            time=snapshot.time,
            requests_per_s=self.num_ended / (now - self.began),
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
    """The outcome of a request that ended with `error`, and the code of the error."""
    if error is None:
        return "ok", ""
    if not isinstance(error, Exception):  # CancelledError, GeneratorExit: no client waits any more
        return "cancelled", ""
    code = error.code if isinstance(error, QwenAioError) else QwenAioError.code
    return "refused" if isinstance(error, QwenAioError) and http_status(error) < 500 else "failed", code
