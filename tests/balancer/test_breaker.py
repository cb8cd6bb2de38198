"""The breaker: when it opens, how long, and that half-open lets exactly one attempt through."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from qwen_aio.balancer.params import PARAMS
from qwen_aio.balancer.workers.breaker import Breaker
from tests.fakes import FakeClock


class World:
    """A breaker and its clock."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.breaker = Breaker(PARAMS, self.clock)

    def fail(self, times: int = 1, *, may_open: bool = True) -> None:
        for _ in range(times):
            self.breaker.begin()
            self.breaker.fail(may_open=may_open)

    def succeed(self, times: int = 1) -> None:
        for _ in range(times):
            self.breaker.begin()
            self.breaker.succeed()

    def half_open(self) -> None:
        self.fail(3)
        self.clock.advance(self.breaker.retry_in_s)
        assert self.breaker.state == "half_open"


@pytest.fixture
def world() -> World:
    return World()


# ---- when it opens --------------------------------------------------------------------------------------------------


def test_it_opens_at_the_third_failure_in_a_row(world: World) -> None:
    world.fail(2)
    assert world.breaker.state == "closed"
    world.fail()
    assert world.breaker.state == "open"
    assert not world.breaker.allows()


def test_what_turns_out_to_have_failed_counts_as_what_failed(world: World) -> None:
    for _ in range(3):
        world.breaker.begin()
        world.breaker.abandon()
        assert world.breaker.state == "closed"
        world.breaker.blame(may_open=True)
    assert world.breaker.state == "open"


def test_a_success_between_begins_the_count_anew(world: World) -> None:
    world.succeed(10)
    for _ in range(4):
        world.fail(2)
        world.succeed(3)
    assert world.breaker.state == "closed"


def test_half_of_five_opens_it_and_half_of_four_does_not(world: World) -> None:
    for _ in range(2):
        world.succeed()
        world.fail()
    assert world.breaker.state == "closed"
    world.fail()  # three of five, two of them in a row
    assert world.breaker.state == "open"


def test_one_failure_of_one_opens_nothing(world: World) -> None:
    world.fail()
    assert world.breaker.allows()


def test_a_share_counts_only_the_last_ten_seconds(world: World) -> None:
    for _ in range(2):
        world.succeed()
        world.fail()
    world.clock.advance(PARAMS.failure_memory_s)
    world.succeed()
    world.fail()
    assert world.breaker.state == "closed"


def test_it_stays_closed_while_too_many_others_are_open(world: World) -> None:
    world.fail(10, may_open=False)
    assert world.breaker.state == "closed"
    world.fail(may_open=True)
    assert world.breaker.state == "open"


def test_eight_requests_that_break_together_open_it_once(world: World) -> None:
    for _ in range(8):
        world.breaker.begin()
    for _ in range(8):
        world.breaker.fail(may_open=True)
    assert world.breaker.retry_in_s == PARAMS.first_open_s


# ---- half-open ------------------------------------------------------------------------------------------------------


def test_time_alone_makes_it_half_open(world: World) -> None:
    world.fail(3)
    world.clock.advance(PARAMS.first_open_s - 0.01)
    assert world.breaker.state == "open"
    world.clock.advance(0.01)
    assert world.breaker.state == "half_open"
    assert world.breaker.retry_in_s == 0.0


def test_half_open_lets_exactly_one_through(world: World) -> None:
    world.half_open()
    assert world.breaker.allows()
    world.breaker.begin()
    assert not world.breaker.allows()


def test_a_good_trial_closes_it_and_forgets_what_led_to_the_opening(world: World) -> None:
    world.half_open()
    world.succeed()
    assert world.breaker.state == "closed"
    world.fail(2)
    assert world.breaker.state == "closed"
    world.fail()
    assert world.breaker.retry_in_s == PARAMS.first_open_s


def test_what_led_to_the_opening_is_not_counted_twice(world: World) -> None:
    world.half_open()
    world.succeed(3)
    world.fail(2)  # two of five; with those of before more than half
    assert world.breaker.state == "closed"


def test_what_went_well_before_the_opening_does_not_excuse_what_comes_after(world: World) -> None:
    world.succeed(20)
    world.half_open()
    world.succeed()
    for is_good in (True, False, True, False, False):
        world.succeed() if is_good else world.fail()
    assert world.breaker.state == "open"


def test_each_bad_trial_doubles_the_pause_up_to_thirty_seconds(world: World) -> None:
    world.fail(3)
    pauses = []
    for _ in range(7):
        pauses.append(world.breaker.retry_in_s)
        world.clock.advance(world.breaker.retry_in_s)
        world.fail()
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_a_trial_without_a_verdict_is_given_back(world: World) -> None:
    world.half_open()
    world.breaker.begin()
    world.breaker.abandon()
    assert world.breaker.state == "half_open"
    assert world.breaker.allows()


def test_a_bad_trial_that_may_not_open_leaves_one_trial_at_a_time(world: World) -> None:
    world.half_open()
    world.fail(may_open=False)
    assert world.breaker.state == "half_open"
    world.breaker.begin()
    assert not world.breaker.allows()


def test_an_old_attempt_that_goes_well_does_not_close_an_open_breaker(world: World) -> None:
    world.breaker.begin()
    world.fail(3)
    world.breaker.succeed()
    assert world.breaker.state == "open"


def test_an_old_attempt_that_is_cancelled_does_not_give_the_trial_back(world: World) -> None:
    world.breaker.begin()
    world.half_open()
    world.breaker.begin()
    world.breaker.abandon()  # whichever of the two it was
    assert not world.breaker.allows()
    world.breaker.abandon()
    assert world.breaker.allows()


def test_a_trial_that_is_overtaken_by_a_failure_does_not_hold_up_the_next_one(world: World) -> None:
    world.breaker.begin()
    world.half_open()
    world.breaker.begin()
    world.breaker.fail(may_open=True)
    world.clock.advance(world.breaker.retry_in_s)
    assert world.breaker.allows()


# ---- failure rate ---------------------------------------------------------------------------------------------------


def test_one_failure_among_none_is_half_and_fades(world: World) -> None:
    world.fail()
    assert world.breaker.failure_rate == pytest.approx(0.5)
    world.clock.advance(3 * PARAMS.failure_memory_s)
    assert world.breaker.failure_rate < 0.05


def test_one_failure_among_many_is_a_small_share(world: World) -> None:
    world.succeed(98)
    world.fail()
    assert world.breaker.failure_rate == pytest.approx(0.01)


def test_a_cancelled_attempt_does_not_count(world: World) -> None:
    world.breaker.begin()
    world.breaker.abandon()
    assert world.breaker.failure_rate == 0.0


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 100))))
def test_the_failure_rate_is_a_share(verdicts: list[tuple[bool, float]]) -> None:
    world = World()
    for is_good, pause_s in verdicts:
        world.succeed() if is_good else world.fail(may_open=False)
        assert 0.0 <= world.breaker.failure_rate < 1.0
        world.clock.advance(pause_s)
        assert 0.0 <= world.breaker.failure_rate < 1.0


# ---- whatever happens -----------------------------------------------------------------------------------------------


class AnyOrder(RuleBasedStateMachine):
    """Attempts begin and end in any order. Knows which of them is the trial; the breaker need not."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.breaker = Breaker(PARAMS, self.clock)
        self.in_flight = 0
        self.begun_half_open = 0  # since it last became half-open

    @precondition(lambda self: self.breaker.allows())
    @rule()
    def begin(self) -> None:
        if self.breaker.state == "half_open":
            self.begun_half_open += 1
        self.breaker.begin()
        self.in_flight += 1

    @precondition(lambda self: self.in_flight)
    @rule(verdict=st.sampled_from(["succeed", "fail", "fail_quietly", "abandon"]))
    def end(self, verdict: str) -> None:
        before = self.breaker.state
        self.in_flight -= 1
        match verdict:
            case "succeed":
                self.breaker.succeed()
            case "abandon":
                self.breaker.abandon()
            case _:
                self.breaker.fail(may_open=verdict == "fail")
        if verdict in ("abandon", "fail_quietly"):
            assert self.breaker.state == before
        if self.in_flight == 0 or self.breaker.state != "half_open":
            self.begun_half_open = 0

    @rule(seconds=st.sampled_from([0.1, 1.0, 5.0, 40.0]))
    def advance(self, seconds: float) -> None:
        before = self.breaker.state
        self.clock.advance(seconds)
        assert self.breaker.state == before or (before, self.breaker.state) == ("open", "half_open")

    @invariant()
    def at_most_one_trial_is_out(self) -> None:
        assert self.begun_half_open <= 1

    @invariant()
    def it_never_stays_shut_with_nothing_in_flight(self) -> None:
        if self.in_flight == 0 and self.breaker.state != "open":
            assert self.breaker.allows()

    @invariant()
    def it_is_never_open_for_longer_than_thirty_seconds(self) -> None:
        assert 0.0 <= self.breaker.retry_in_s <= PARAMS.longest_open_s
        assert (self.breaker.retry_in_s > 0) == (self.breaker.state == "open")

    @invariant()
    def the_failure_rate_is_a_share(self) -> None:
        assert 0.0 <= self.breaker.failure_rate < 1.0


TestAnyOrder = AnyOrder.TestCase
