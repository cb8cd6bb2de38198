from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_aio.balancer.snapshot import EventRow, RequestRow, Sample, Snapshot
from qwen_aio.balancer.stats import MAX_BEHIND, MAX_EVENTS, MAX_MOMENTS, MAX_REQUESTS, Stats, StatsHistory
from qwen_aio.errors import Draining, InvalidRequest, PoisonRequest, QueueFull
from tests.balancer.fake_view import FakeView
from tests.fakes import FakeClock


class Boards:
    """A board whose two clocks stand still until told."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.board = Stats(clock=self.clock, wall_clock=lambda: self.clock() + 1_700_000_000)
        self.snapshot = replace(FakeView().snapshot(), time=1_700_001_000.0)

    def finish(self, request_id="r", *, total_ms=10.0, error: BaseException | None = None) -> None:
        self.board.record(
            request_id=request_id,
            task="chat",
            worker="qwen-1",
            why="cost 0.01",
            attempts=1,
            queue_ms=1.0,
            total_ms=total_ms,
            tokens=3,
            error=error,
        )

    def moment(self, after_s: float = 2.0) -> Sample | None:
        """The point that a tick after so many seconds makes, if it makes one."""
        before = self.board.history().moments
        self.clock.advance(after_s)
        self.board.tick(self.snapshot)
        after = self.board.history().moments
        return after[-1] if after != before else None


# ---- what is remembered ----


def test_rows_are_numbered_and_kept_in_order():
    boards = Boards()
    boards.finish("a")
    boards.clock.advance(5)
    boards.finish("a")  # the second call of the same request
    rows = boards.board.history().requests
    assert [(row.number, row.id, row.time) for row in rows] == [(1, "a", 1_700_001_000), (2, "a", 1_700_001_005)]
    boards.board.event("qwen-1", "person", "ready -> maint", "by the dashboard")
    boards.board.event("qwen-2", "call", "up -> down", "connection refused")
    assert boards.board.history().events[1] == EventRow(
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
    boards = Boards()
    boards.finish(error=error)
    (row,) = boards.board.history().requests
    assert (row.outcome, row.error) == (outcome, code)
    assert (boards.board.num_requests, boards.board.num_failures) == (1, int(outcome == "failed"))


def test_what_is_old_is_forgotten_and_totals_are_not():
    boards = Boards()
    for _ in range(MAX_REQUESTS + 5):
        boards.finish()
        boards.board.event("w", "clock", "up -> suspect", "")
    for _ in range(MAX_MOMENTS + 5):
        boards.moment()
    history = boards.board.history()
    assert len(history.requests) == MAX_REQUESTS and history.requests[0].number == 6
    assert len(history.events) == MAX_EVENTS and history.events[-1].number == MAX_REQUESTS + 5
    assert len(history.moments) == MAX_MOMENTS
    assert boards.board.num_requests == MAX_REQUESTS + 5


# ---- the charts ----


def test_a_moment_tells_what_happened_in_its_period():
    boards = Boards()
    for total_ms in (10, 20, 30, 400):
        boards.finish(total_ms=total_ms)
    boards.finish(total_ms=0.1, error=InvalidRequest("x"))  # counts as a request, says nothing about speed
    moment = boards.moment()
    assert moment == Sample(
        time=1_700_001_000.0,
        requests_per_s=2.5,
        p50_ms=20,
        p95_ms=400,
        waiting=2,
        cpu_percent={"qwen-1": 93.1, "qwen-2": 12.0},
        in_flight={"qwen-1": 3, "qwen-2": 0},
    )
    assert boards.moment() == replace(moment, requests_per_s=0.0, p50_ms=None, p95_ms=None)


def test_ticks_between_two_moments_make_none():
    boards = Boards()
    assert boards.moment(after_s=1.0) is None
    assert boards.moment(after_s=0.99) is not None
    assert boards.moment(after_s=1.0) is None
    assert boards.moment(after_s=60.0) is not None  # the process was stopped meanwhile


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=50))
def test_percentiles_are_values_that_were_measured(values):
    boards = Boards()
    for value in values:
        boards.finish(total_ms=value)
    moment = boards.moment()
    assert moment is not None and moment.p50_ms is not None and moment.p95_ms is not None
    assert {moment.p50_ms, moment.p95_ms} <= set(values)
    assert sum(value <= moment.p50_ms for value in values) >= len(values) * 0.5
    assert sum(value <= moment.p95_ms for value in values) >= len(values) * 0.95
    assert min(values) <= moment.p50_ms <= moment.p95_ms <= max(values)


# ---- looking on ----


async def test_an_onlooker_gets_everything_and_then_what_comes():
    boards = Boards()
    boards.finish("before")
    boards.board.tick(boards.snapshot)
    async with aclosing(boards.board.listen()) as news:
        history, snapshot = await anext(news)
        assert isinstance(history, StatsHistory) and [row.id for row in history.requests] == ["before"]
        assert snapshot == boards.snapshot
        boards.finish("after")
        boards.board.event("w", "clock", "up -> suspect", "")
        boards.moment()
        kinds = [type(item) for item in await anext(news)]
        assert kinds == [RequestRow, EventRow, Snapshot, Sample]


async def test_onlookers_do_not_share_what_they_have_read():
    boards = Boards()
    async with aclosing(boards.board.listen()) as first, aclosing(boards.board.listen()) as second:
        await anext(first)
        boards.finish()
        assert len(await anext(second)) == 1  # it came later, so its history holds the row
        assert len(await anext(first)) == 1
        boards.finish("two")
        for news in (first, second):
            (row,) = await anext(news)
            assert row.id == "two"


async def test_whoever_reads_too_slowly_is_let_go_and_others_are_not():
    boards = Boards()
    async with aclosing(boards.board.listen()) as slow, aclosing(boards.board.listen()) as quick:
        await anext(slow)
        await anext(quick)
        seen = 0
        while seen < 2 * MAX_BEHIND:
            for _ in range(MAX_BEHIND // 2):
                boards.finish()
            seen += len(await anext(quick))
        assert [item async for item in slow] == []
        boards.finish()
        assert len(await anext(quick)) == 1
        async with aclosing(boards.board.listen()) as again:
            (history,) = await anext(again)
            assert isinstance(history, StatsHistory) and len(history.requests) == MAX_REQUESTS


async def test_closing_lets_everybody_go_and_nobody_in():
    boards = Boards()
    async with aclosing(boards.board.listen()) as news:
        await anext(news)
        following = asyncio.ensure_future(anext(news, None))
        boards.board.close()
        assert await following is None
    with pytest.raises(Draining):
        await anext(boards.board.listen())


async def test_nobody_is_kept_who_has_gone():
    boards = Boards()
    async with aclosing(boards.board.listen()) as news:
        await anext(news)
        assert boards.board.num_subscribers == 1
    assert boards.board.num_subscribers == 0
