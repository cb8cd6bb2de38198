"""Demotion by latency: exactly at three new slow reports, ended by two good ones, and a way back for the idle."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_aio.balancer.params import PARAMS
from qwen_aio.balancer.workers.demotion import Demotion
from tests.fakes import FakeClock

SLOW, GOOD = PARAMS.slow_ms + 1, PARAMS.slow_ms  # the limit itself is good


class World:
    """A worker's reports, each with one more request done by default."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.demotion = Demotion(PARAMS, self.clock)
        self.completed = 0

    def report(self, *latencies_ms: float | None) -> None:
        for slow_ms in latencies_ms:
            self.completed += 1
            self.demotion.report(completed=self.completed, slow_ms=slow_ms)

    def repeat(self, slow_ms: float, *, times: int) -> None:
        for _ in range(times):
            self.demotion.report(completed=self.completed, slow_ms=slow_ms)


@pytest.fixture
def world() -> World:
    return World()


def test_the_third_slow_report_in_a_row_demotes(world: World) -> None:
    world.report(SLOW, SLOW)
    assert not world.demotion.is_wanted
    world.report(SLOW)
    assert world.demotion.is_wanted
    assert world.demotion.slow_ms == SLOW


def test_the_same_report_read_many_times_counts_once(world: World) -> None:
    world.report(SLOW)
    world.repeat(SLOW, times=100)
    assert not world.demotion.is_wanted


def test_two_slow_and_one_good_never_demote(world: World) -> None:
    world.report(*[SLOW, SLOW, GOOD] * 20)
    assert not world.demotion.is_wanted


def test_the_limit_itself_is_not_slow(world: World) -> None:
    world.report(*[PARAMS.slow_ms] * 10)
    assert not world.demotion.is_wanted


def test_a_report_without_a_latency_says_nothing(world: World) -> None:
    world.report(SLOW, SLOW, None, SLOW)
    assert world.demotion.is_wanted
    assert world.demotion.slow_ms == SLOW


def test_nothing_was_measured_before_the_first_report(world: World) -> None:
    assert world.demotion.slow_ms == 0.0
    assert not world.demotion.probe_due()


def test_two_good_reports_end_it_and_one_does_not(world: World) -> None:
    world.report(SLOW, SLOW, SLOW, GOOD)
    assert world.demotion.is_wanted
    world.repeat(GOOD, times=10)
    assert world.demotion.is_wanted
    world.report(GOOD)
    assert not world.demotion.is_wanted


def test_good_and_slow_by_turns_do_not_end_it(world: World) -> None:
    world.report(SLOW, SLOW, SLOW, *[GOOD, SLOW] * 10)
    assert world.demotion.is_wanted


def test_after_its_end_it_takes_three_slow_ones_again(world: World) -> None:
    world.report(SLOW, SLOW, SLOW, GOOD, GOOD, SLOW, SLOW)
    assert not world.demotion.is_wanted
    world.report(SLOW)
    assert world.demotion.is_wanted


def test_probes_come_after_five_seconds_and_then_ever_more_rarely(world: World) -> None:
    world.report(SLOW, SLOW, SLOW)
    pauses = []
    for _ in range(6):
        before = world.clock.now
        while not world.demotion.probe_due():
            world.clock.advance(1)
        pauses.append(world.clock.now - before)
        world.demotion.probe_sent()
        assert not world.demotion.probe_due()
    assert pauses == [5, 10, 20, 40, 60, 60]


def test_more_slow_reports_do_not_put_the_probe_off(world: World) -> None:
    world.report(SLOW, SLOW, SLOW)
    for _ in range(5):
        world.clock.advance(1)
        world.report(SLOW)
    assert world.demotion.probe_due()


def test_a_new_demotion_begins_with_the_short_pause_again(world: World) -> None:
    world.report(SLOW, SLOW, SLOW)
    world.demotion.probe_sent()
    world.report(GOOD, GOOD)
    assert not world.demotion.probe_due()
    world.report(SLOW, SLOW, SLOW)
    world.clock.advance(PARAMS.first_probe_s)
    assert world.demotion.probe_due()


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3))))
def test_only_the_run_of_the_last_new_reports_decides(reports: list[tuple[bool, int]]) -> None:
    world = World()
    wants, run, last = False, 0, None
    for is_slow, repeats in reports:
        world.report(SLOW if is_slow else GOOD)
        world.repeat(GOOD if is_slow else SLOW, times=repeats)
        run = run + 1 if is_slow == last else 1
        last = is_slow
        if run >= (PARAMS.slow_reports if is_slow else PARAMS.good_reports):
            wants = is_slow
        assert world.demotion.is_wanted == wants
