from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_aio.balancer.snapshot import EventRow, RequestRow, Sample, Snapshot
from qwen_aio.balancer.stats import MAX_EVENTS, MAX_PENDING, MAX_REQUESTS, MAX_SAMPLES, Stats, StatsHistory
from qwen_aio.errors import Draining, InvalidRequest, PoisonRequest, QueueFull
from tests.balancer.fake_view import FakeView
from tests.fakes import FakeClock


class StatsScene:
    """Stats whose two clocks stand still."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.stats = Stats(clock=self.clock, wall_clock=lambda: self.clock() + 1_700_000_000)
        self.snapshot = replace(FakeView().snapshot(), time=1_700_001_000.0)

    def finish(self, request_id="r", *, total_ms=10.0, error: BaseException | None = None) -> None:
        row = RequestRow(
            id=request_id,
            task="chat",
            worker="qwen-1",
            why="cost 0.01",
            attempts=1,
            queue_ms=1.0,
            total_ms=total_ms,
            tokens=3,
        )
        self.stats.record(row, error)

    def sample(self, after_s: float = 2.0) -> Sample | None:
        """The point that a tick after so many seconds makes, if it makes one."""
        before = self.stats.history().moments
        self.clock.advance(after_s)
        self.stats.tick(self.snapshot)
        after = self.stats.history().moments
        return after[-1] if after != before else None


# ---- what is remembered ----


def test_rows_are_numbered_and_kept_in_order():
    scene = StatsScene()
    scene.finish("a")
    scene.clock.advance(5)
    scene.finish("a")  # the second engine request of the same request
    rows = scene.stats.history().requests
    assert [(row.number, row.id, row.time) for row in rows] == [(1, "a", 1_700_001_000), (2, "a", 1_700_001_005)]
    scene.stats.event("qwen-1", "person", "ready -> maint", "by the dashboard")
    scene.stats.event("qwen-2", "call", "up -> down", "connection refused")
    assert scene.stats.history().events[1] == EventRow(
        2, 1_700_001_005, "qwen-2", "call", "up -> down", "connection refused"
    )


@pytest.mark.parametrize(
    ("error", "outcome", "code"),
    [
        (None, "ok", ""),
        (asyncio.CancelledError(), "cancelled", ""),
        (GeneratorExit(), "cancelled", ""),
        (InvalidRequest("x"), "refused", "invalid_request"),
        (QueueFull("x"), "failed", "queue_full"),
        (PoisonRequest("x"), "failed", "poison_request"),
        (ZeroDivisionError("SECRET"), "failed", "internal"),
    ],
)
def test_the_outcome_tells_whose_fault_it_was(error, outcome, code):
    scene = StatsScene()
    scene.finish(error=error)
    (row,) = scene.stats.history().requests
    assert (row.outcome, row.error) == (outcome, code)
    assert (scene.stats.num_requests, scene.stats.num_failures) == (1, int(outcome == "failed"))


def test_what_is_old_is_forgotten_and_totals_are_not():
    scene = StatsScene()
    for _ in range(MAX_REQUESTS + 5):
        scene.finish()
        scene.stats.event("w", "clock", "up -> suspect", "")
    for _ in range(MAX_SAMPLES + 5):
        scene.sample()
    history = scene.stats.history()
    assert len(history.requests) == MAX_REQUESTS and history.requests[0].number == 6
    assert len(history.events) == MAX_EVENTS and history.events[-1].number == MAX_REQUESTS + 5
    assert len(history.moments) == MAX_SAMPLES
    assert scene.stats.num_requests == MAX_REQUESTS + 5


# ---- the charts ----


def test_a_sample_tells_what_happened_in_its_period():
    scene = StatsScene()
    for total_ms in (10, 20, 30, 400):
        scene.finish(total_ms=total_ms)
    scene.finish(total_ms=0.1, error=InvalidRequest("x"))  # counts as a request, says nothing about speed
    sample = scene.sample()
    assert sample == Sample(
        time=1_700_001_000.0,
        requests_per_s=2.5,
        p50_ms=20,
        p95_ms=400,
        waiting=2,
        cpu_percent={"qwen-1": 93.1, "qwen-2": 12.0},
        in_flight={"qwen-1": 3, "qwen-2": 0},
    )
    assert scene.sample() == replace(sample, requests_per_s=0.0, p50_ms=None, p95_ms=None)


def test_ticks_between_two_samples_make_none():
    scene = StatsScene()
    assert scene.sample(after_s=1.0) is None
    assert scene.sample(after_s=0.99) is not None
    assert scene.sample(after_s=1.0) is None
    assert scene.sample(after_s=60.0) is not None  # the process was stopped meanwhile


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50))
def test_percentiles_are_values_that_were_measured(values):
    scene = StatsScene()
    for value in values:
        scene.finish(total_ms=value)
    sample = scene.sample()
    assert sample is not None and sample.p50_ms is not None and sample.p95_ms is not None
    assert {sample.p50_ms, sample.p95_ms} <= set(values)
    assert sum(value <= sample.p50_ms for value in values) >= len(values) * 0.5
    assert sum(value <= sample.p95_ms for value in values) >= len(values) * 0.95
    assert min(values) <= sample.p50_ms <= sample.p95_ms <= max(values)


# ---- subscribers ----


async def test_a_subscriber_gets_everything_and_then_what_comes():
    scene = StatsScene()
    scene.finish("before")
    scene.stats.tick(scene.snapshot)
    async with aclosing(scene.stats.listen()) as news:
        history, snapshot = await anext(news)
        assert isinstance(history, StatsHistory) and [row.id for row in history.requests] == ["before"]
        assert snapshot == scene.snapshot
        scene.finish("after")
        scene.stats.event("w", "clock", "up -> suspect", "")
        scene.sample()
        kinds = [type(item) for item in await anext(news)]
        assert kinds == [RequestRow, EventRow, Snapshot, Sample]


async def test_subscribers_do_not_share_what_they_have_read():
    scene = StatsScene()
    async with aclosing(scene.stats.listen()) as first, aclosing(scene.stats.listen()) as second:
        await anext(first)
        scene.finish()
        assert len(await anext(second)) == 1  # it came later, so its history holds the row
        assert len(await anext(first)) == 1
        scene.finish("two")
        for news in (first, second):
            (row,) = await anext(news)
            assert row.id == "two"


async def test_a_subscriber_that_reads_too_slowly_is_dropped_and_others_are_not():
    scene = StatsScene()
    async with aclosing(scene.stats.listen()) as slow, aclosing(scene.stats.listen()) as quick:
        await anext(slow)
        await anext(quick)
        seen = 0
        while seen < 2 * MAX_PENDING:
            for _ in range(MAX_PENDING // 2):
                scene.finish()
            seen += len(await anext(quick))
        assert [item async for item in slow] == []
        scene.finish()
        assert len(await anext(quick)) == 1
        async with aclosing(scene.stats.listen()) as again:
            (history,) = await anext(again)
            assert isinstance(history, StatsHistory) and len(history.requests) == MAX_REQUESTS


async def test_closing_ends_all_subscriptions_and_refuses_new_ones():
    scene = StatsScene()
    async with aclosing(scene.stats.listen()) as news:
        await anext(news)
        following = asyncio.ensure_future(anext(news, None))
        scene.stats.close()
        assert await following is None
    with pytest.raises(Draining):
        await anext(scene.stats.listen())


async def test_a_subscriber_that_has_left_is_forgotten():
    scene = StatsScene()
    async with aclosing(scene.stats.listen()) as news:
        await anext(news)
        assert scene.stats.num_subscribers == 1
    assert scene.stats.num_subscribers == 0
