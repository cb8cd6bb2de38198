"""When drafting pays, with made-up costs and outcomes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_aio.engine.scheduling.acceptance import FIRST_PAUSE, LONGEST_PAUSE, AcceptanceRate, DraftCost


def pause_of(acceptance: AcceptanceRate, *, threshold: float) -> int:
    """Steps without a draft from now on."""
    steps = 0
    while not acceptance.should_draft(threshold=threshold):
        steps += 1
    return steps


# ---- what it costs ----


def test_without_a_plain_step_to_compare_with_there_is_no_threshold() -> None:
    cost = DraftCost()
    cost.learn(num_answers=2, num_drafted=0, seconds=1.0)
    assert cost.threshold(1) is None
    assert cost.threshold(2) == 0.0  # nothing is known against it


@pytest.mark.parametrize(
    ("plain_s", "drafting_s", "threshold"),
    [(20.0, 27.0, 0.05), (2.0, 6.8, 2.4 / 7), (2.0, 1.9, 0.0), (2.0, 900.0, 1.0)],
)
def test_a_draft_token_costs_its_share_of_what_the_step_takes_longer(
    plain_s: float, drafting_s: float, threshold: float
) -> None:
    cost = DraftCost()
    cost.learn(num_answers=1, num_drafted=0, seconds=plain_s)
    cost.learn(num_answers=1, num_drafted=7, seconds=drafting_s)
    assert cost.threshold(1) == pytest.approx(threshold)


def test_beside_many_answers_the_same_row_is_dearer_as_the_step_gives_more_without_it() -> None:
    cost = DraftCost()
    for num_answers in (1, 4):
        cost.learn(num_answers=num_answers, num_drafted=0, seconds=10.0)
        cost.learn(num_answers=num_answers, num_drafted=2, seconds=11.0)
    assert cost.threshold(4) == pytest.approx(4 * cost.threshold(1))


def test_a_threshold_follows_the_machine() -> None:
    cost = DraftCost()
    cost.learn(num_answers=1, num_drafted=0, seconds=1.0)
    cost.learn(num_answers=1, num_drafted=1, seconds=30.0)  # something else ran
    for _ in range(20):
        cost.learn(num_answers=1, num_drafted=1, seconds=1.1)
    assert cost.threshold(1) == pytest.approx(0.1, abs=0.01)


@given(st.lists(st.tuples(st.integers(1, 7), st.integers(0, 7), st.floats(0, 1e6))))
def test_a_threshold_is_a_rate_whatever_the_clock_says(steps: list[tuple[int, int, float]]) -> None:
    cost = DraftCost()
    for num_answers, num_drafted, seconds in steps:
        cost.learn(num_answers=num_answers, num_drafted=num_drafted, seconds=seconds)
        threshold = cost.threshold(num_answers)
        assert threshold is None or 0 <= threshold <= 1 + 1e-9


# ---- how often it comes true ----


def test_the_first_draft_is_made_at_any_threshold() -> None:
    assert AcceptanceRate().should_draft(threshold=0.99)


def test_it_goes_on_while_the_acceptance_rate_is_above_the_threshold() -> None:
    acceptance = AcceptanceRate()
    for _ in range(100):
        acceptance.learn(num_drafted=7, num_accepted=3)
        assert acceptance.should_draft(threshold=0.4)


def test_free_drafts_stop_too_when_none_is_accepted() -> None:
    acceptance = AcceptanceRate()
    acceptance.learn(num_drafted=7, num_accepted=0)
    assert not acceptance.should_draft(threshold=0.0)


def test_after_a_failure_it_waits_twice_as_long_each_time_but_never_for_good() -> None:
    acceptance = AcceptanceRate()
    pauses = []
    for _ in range(6):
        acceptance.learn(num_drafted=7, num_accepted=0)
        pauses.append(pause_of(acceptance, threshold=0.3))
    assert pauses == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE, *[LONGEST_PAUSE] * 3]


def test_a_text_that_begins_to_quote_later_is_noticed_at_once() -> None:
    acceptance = AcceptanceRate()
    for _ in range(4):
        acceptance.learn(num_drafted=7, num_accepted=0)
        pause_of(acceptance, threshold=0.3)
    acceptance.learn(num_drafted=7, num_accepted=6)  # the trial after the pause
    assert acceptance.should_draft(threshold=0.3)
    for _ in range(20):
        acceptance.learn(num_drafted=7, num_accepted=0)
    assert pause_of(acceptance, threshold=0.3) == FIRST_PAUSE  # what was before the good time is forgotten


def test_one_rejected_draft_among_accepted_ones_stops_nothing() -> None:
    acceptance = AcceptanceRate()
    for _ in range(5):
        acceptance.learn(num_drafted=7, num_accepted=7)
    acceptance.learn(num_drafted=7, num_accepted=0)
    assert acceptance.should_draft(threshold=0.3)
