"""When guessing pays, with made-up costs and outcomes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_aio.engine.scheduling.acceptance import FIRST_PAUSE, LONGEST_PAUSE, AcceptanceRate, DraftCost


def pause_of(habit: AcceptanceRate, *, price: float) -> int:
    """Steps without a guess from now on."""
    steps = 0
    while not habit.wants_to_guess(price=price):
        steps += 1
    return steps


# ---- what it costs ----


def test_without_a_plain_step_to_compare_with_there_is_no_price() -> None:
    prices = DraftCost()
    prices.learn(num_answers=2, num_guessed=0, seconds=1.0)
    assert prices.price(1) is None
    assert prices.price(2) == 0.0  # nothing is known against it


@pytest.mark.parametrize(
    ("plain_s", "guessing_s", "price"),
    [(20.0, 27.0, 0.05), (2.0, 6.8, 2.4 / 7), (2.0, 1.9, 0.0), (2.0, 900.0, 1.0)],
)
def test_a_guess_costs_its_share_of_what_the_step_takes_longer(plain_s: float, guessing_s: float, price: float) -> None:
    prices = DraftCost()
    prices.learn(num_answers=1, num_guessed=0, seconds=plain_s)
    prices.learn(num_answers=1, num_guessed=7, seconds=guessing_s)
    assert prices.price(1) == pytest.approx(price)


def test_beside_many_answers_the_same_row_is_dearer_as_the_step_gives_more_without_it() -> None:
    prices = DraftCost()
    for num_answers in (1, 4):
        prices.learn(num_answers=num_answers, num_guessed=0, seconds=10.0)
        prices.learn(num_answers=num_answers, num_guessed=2, seconds=11.0)
    assert prices.price(4) == pytest.approx(4 * prices.price(1))


def test_a_price_follows_the_machine() -> None:
    prices = DraftCost()
    prices.learn(num_answers=1, num_guessed=0, seconds=1.0)
    prices.learn(num_answers=1, num_guessed=1, seconds=30.0)  # something else ran
    for _ in range(20):
        prices.learn(num_answers=1, num_guessed=1, seconds=1.1)
    assert prices.price(1) == pytest.approx(0.1, abs=0.01)


@given(st.lists(st.tuples(st.integers(1, 7), st.integers(0, 7), st.floats(0, 1e6))))
def test_a_price_is_a_chance_whatever_the_clock_says(steps: list[tuple[int, int, float]]) -> None:
    prices = DraftCost()
    for num_answers, num_guessed, seconds in steps:
        prices.learn(num_answers=num_answers, num_guessed=num_guessed, seconds=seconds)
        price = prices.price(num_answers)
        assert price is None or 0 <= price <= 1 + 1e-9


# ---- how often it comes true ----


def test_the_first_guess_is_made_at_any_price() -> None:
    assert AcceptanceRate().wants_to_guess(price=0.99)


def test_it_goes_on_while_guesses_come_true_more_often_than_they_cost() -> None:
    habit = AcceptanceRate()
    for _ in range(100):
        habit.learn(num_guessed=7, num_accepted=3)
        assert habit.wants_to_guess(price=0.4)


def test_free_guesses_are_given_up_too_when_none_comes_true() -> None:
    habit = AcceptanceRate()
    habit.learn(num_guessed=7, num_accepted=0)
    assert not habit.wants_to_guess(price=0.0)


def test_after_a_failure_it_waits_twice_as_long_each_time_but_never_for_good() -> None:
    habit = AcceptanceRate()
    pauses = []
    for _ in range(6):
        habit.learn(num_guessed=7, num_accepted=0)
        pauses.append(pause_of(habit, price=0.3))
    assert pauses == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE, *[LONGEST_PAUSE] * 3]


def test_a_text_that_begins_to_quote_later_is_noticed_at_once() -> None:
    habit = AcceptanceRate()
    for _ in range(4):
        habit.learn(num_guessed=7, num_accepted=0)
        pause_of(habit, price=0.3)
    habit.learn(num_guessed=7, num_accepted=6)  # the trial after the pause
    assert habit.wants_to_guess(price=0.3)
    for _ in range(20):
        habit.learn(num_guessed=7, num_accepted=0)
    assert pause_of(habit, price=0.3) == FIRST_PAUSE  # what was before the good time is forgotten


def test_one_bad_guess_among_good_ones_stops_nothing() -> None:
    habit = AcceptanceRate()
    for _ in range(5):
        habit.learn(num_guessed=7, num_accepted=7)
    habit.learn(num_guessed=7, num_accepted=0)
    assert habit.wants_to_guess(price=0.3)
