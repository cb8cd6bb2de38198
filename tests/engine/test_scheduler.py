"""Admission and batches, with sequences that compute nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_aio.engine.scheduling.order import OVERDUE_AFTER_S
from qwen_aio.engine.scheduling.scheduler import MAX_OVERTAKEN
from tests.engine.fake_sequences import LIMITS, FakeAnswer, FakeDecision, compute, make, names, rows


def test_a_step_takes_one_row_of_each_answer_and_chunks_of_prompts() -> None:
    scheduler = make()
    scheduler.add(FakeAnswer("a", [1, 2, 3], max_tokens=9))
    assert rows(compute(scheduler)) == [("a", 0, 3)]
    scheduler.add(FakeAnswer("b", list(range(10)), max_tokens=5))
    assert rows(compute(scheduler)) == [("a", 3, 1), ("b", 0, 7)]  # half of 15: an answer decodes
    assert rows(compute(scheduler)) == [("a", 4, 1), ("b", 7, 3)]
    assert rows(compute(scheduler)) == [("a", 5, 1), ("b", 10, 1)]


def test_beside_answers_every_other_step_is_of_decisions_alone() -> None:
    scheduler = make()
    scheduler.add(FakeAnswer("a", [1, 2, 3], max_tokens=9))
    compute(scheduler)
    scheduler.add(FakeDecision("d", list(range(60))))
    assert rows(compute(scheduler)) == [("d", 0, 12)]
    assert rows(compute(scheduler)) == [("a", 3, 1), ("d", 12, 7)]
    assert rows(compute(scheduler)) == [("d", 19, 12)]
    scheduler.add(FakeDecision("e", list(range(4))))
    assert rows(compute(scheduler)) == [("a", 4, 1), ("e", 0, 4)]
    scheduler.add(FakeDecision("f", [7] * 4))
    assert rows(compute(scheduler)) == [("f", 0, 4), ("d", 31, 12)]  # which the last step left out
    assert rows(compute(scheduler)) == [("a", 5, 1), ("d", 43, 7)]


def test_decisions_are_computed_before_answers_that_came_earlier() -> None:
    scheduler = make()
    scheduler.add(FakeAnswer("a", [1] * 30, max_tokens=5))
    scheduler.add(FakeDecision("d", [2] * 8))
    assert rows(compute(scheduler)) == [("d", 0, 8)]
    for n in range(3):
        scheduler.add(FakeDecision(f"e{n}", [3 + n] * 5))
    assert rows(compute(scheduler)) == [("e0", 0, 5), ("e1", 0, 5), ("e2", 0, 2), ("a", 0, 4)]  # a quarter for answers


def test_answers_leave_places_for_decisions() -> None:
    scheduler = make()
    for n in range(6):
        scheduler.add(FakeAnswer(f"a{n}", [n] * 4, max_tokens=20))
    compute(scheduler)
    assert scheduler.num_running == LIMITS.max_answers
    scheduler.add(FakeDecision("d", [1, 2, 3]))
    assert "d" in names(compute(scheduler))


def test_answers_leave_memory_for_decisions() -> None:
    scheduler = make(num_slots=80)  # 60 for answers
    scheduler.add(FakeAnswer("a0", [1] * 10, max_tokens=40))
    scheduler.add(FakeAnswer("a1", [2] * 10, max_tokens=10))
    compute(scheduler)
    assert scheduler.num_running == 1  # 50 + 20 would be too much
    scheduler.add(FakeDecision("d", [3] * 20))
    assert "d" in names(compute(scheduler))


def test_short_decisions_may_use_every_place() -> None:
    scheduler = make()
    for n in range(6):
        scheduler.add(FakeDecision(f"d{n}", [n] * 8))
    scheduler.admit(now_s=0.0)
    assert scheduler.num_running == LIMITS.max_running


def test_a_short_decision_waits_for_one_step_only_after_ten_long_ones() -> None:
    scheduler = make()
    for n in range(10):
        scheduler.add(FakeDecision(f"long{n}", [n] * 60))
    for n in range(50):
        assert sum(span.count for span in compute(scheduler)) == 12  # three quarters of a step
        scheduler.add(FakeDecision(f"short{n}", [100 + n] * 8))
        assert rows(compute(scheduler)) == [(f"short{n}", 0, 8)]


def test_many_short_decisions_at_once_find_places_after_ten_long_ones() -> None:
    scheduler = make()
    for n in range(10):
        scheduler.add(FakeDecision(f"long{n}", [n] * 60))
    compute(scheduler)
    for n in range(3):
        scheduler.add(FakeDecision(f"short{n}", [n] * 5))
    assert names(compute(scheduler)) == ["short0", "short1", "short2"]


@pytest.mark.parametrize("is_decoding", [True, False])
def test_a_short_decision_waits_for_one_step_only_after_answers_and_long_ones(is_decoding: bool) -> None:
    scheduler = make()
    for n in range(LIMITS.max_answers + 1):
        scheduler.add(FakeAnswer(f"a{n}", [n] * (4 if is_decoding else 40), max_tokens=20))
    for n in range(10):
        scheduler.add(FakeDecision(f"long{n}", [n] * (50 - 2 * n)))  # each one may go before those that run
        compute(scheduler)
    for n in range(12):
        assert scheduler.num_running < LIMITS.max_running
        scheduler.add(FakeDecision(f"short{n}", [100 + n] * 8))
        spans = {span.sequence.request_id: span.count for span in compute(scheduler)}
        assert spans[f"short{n}"] == 8
        assert not any(name.startswith("long") for name in spans)
        compute(scheduler)


def test_a_short_decision_finds_memory_beside_answers_and_a_long_one() -> None:
    scheduler = make(num_slots=80)  # 60 for answers
    scheduler.add(FakeAnswer("a0", [1] * 10, max_tokens=40))
    scheduler.add(FakeAnswer("a1", [2] * 4, max_tokens=4))
    compute(scheduler)
    assert scheduler.num_running == 1  # together they would leave less than eight beside the longest decision
    scheduler.add(FakeDecision("long", [3] * scheduler.max_decision_rows))
    assert names(compute(scheduler)) == ["long"]
    scheduler.add(FakeDecision("short", [4] * 8))
    assert names(compute(scheduler)) == ["a0", "short"]


def test_the_shortest_remaining_long_decision_goes_first() -> None:
    scheduler = make()
    scheduler.add(FakeDecision("long", [1] * 40))
    compute(scheduler)
    scheduler.add(FakeDecision("longer", [2] * 50))
    scheduler.add(FakeDecision("shorter", [3] * 20))
    order = [name for _ in range(9) for name in names(compute(scheduler))]
    assert order == [*["shorter", "shorter"], "long", "long", "long", *["longer"] * 5]


def test_beside_short_ones_in_every_step_a_long_decision_goes_on_in_every_other() -> None:
    scheduler = make()
    scheduler.add(FakeDecision("long", [1] * 60))
    compute(scheduler)
    steps = []
    for n in range(8):
        scheduler.add(FakeDecision(f"short{n}", [100 + n] * 5))
        steps.append(names(compute(scheduler)))
    assert [step[0] for step in steps] == [f"short{n}" for n in range(8)]
    assert [step[1:] for step in steps] == [[], ["long"]] * 4


def test_an_overdue_long_decision_goes_first_and_short_ones_beside_it() -> None:
    scheduler = make()
    scheduler.add(FakeDecision("old", [1] * 40, arrived_s=1.0))
    now_s = 1.0 + OVERDUE_AFTER_S
    scheduler.add(FakeDecision("new", [2] * 20, arrived_s=now_s))
    scheduler.add(FakeDecision("short", [3] * 5, arrived_s=now_s))
    assert rows(compute(scheduler, now_s=now_s - 0.1)) == [("short", 0, 5)]
    assert rows(compute(scheduler, now_s=now_s - 0.1)) == [("new", 0, 12)]
    scheduler.add(FakeDecision("short", [4] * 5, arrived_s=now_s))
    assert rows(compute(scheduler, now_s=now_s)) == [("old", 0, 8), ("short", 0, 5), ("new", 12, 3)]
    assert rows(compute(scheduler, now_s=now_s)) == [("old", 8, 12)]


def test_what_an_overdue_long_decision_leaves_of_its_share_goes_to_the_next() -> None:
    scheduler = make()
    scheduler.add(FakeDecision("old", [1] * 18, arrived_s=1.0))
    scheduler.add(FakeDecision("new", [2] * 20, arrived_s=9.0))
    steps = [rows(compute(scheduler, now_s=1.0 + OVERDUE_AFTER_S)) for _ in range(3)]
    assert steps == [[("old", 0, 12)], [("old", 12, 6), ("new", 0, 6)], [("new", 6, 12)]]


@given(
    num_slots=st.integers(60, 240),
    budget=st.integers(8, 40),
    short_rows=st.integers(1, 20),
    long_rows=st.integers(21, 40),
)
@settings(deadline=None)
def test_nothing_starves_under_more_short_decisions_than_can_be_computed(
    num_slots: int, budget: int, short_rows: int, long_rows: int
) -> None:
    """One step a second; an overdue one ends once its rows and those of earlier ones are done."""
    scheduler = make(num_slots, replace(LIMITS, max_batch_tokens=budget))
    waiting = [FakeDecision("long", [8] * long_rows), FakeDecision("longer", [9] * (long_rows + 5))]
    waiting.append(FakeAnswer("answer", [7] * 12, max_tokens=4))
    for sequence in waiting:
        scheduler.add(sequence)
    for now in range(round(OVERDUE_AFTER_S) + 2 * MAX_OVERTAKEN + 4 * (long_rows + 5)):
        for n in range(budget // short_rows + 1):
            scheduler.add(FakeDecision(f"{now}-{n}", [n % 7] * short_rows, arrived_s=float(now)))
        compute(scheduler, now_s=float(now))
        if all(sequence.is_finished for sequence in waiting):
            break
    assert all(sequence.is_finished for sequence in waiting)


def test_a_flood_of_decisions_does_not_starve_an_answer() -> None:
    scheduler = make()
    scheduler.add(FakeAnswer("a", [5] * 12, max_tokens=2))
    ran = set[str]()
    for n in range(MAX_OVERTAKEN + 40):
        scheduler.add(FakeDecision(f"d{n}", [n % 7] * 16))  # as fast as they are computed
        scheduler.add(FakeDecision(f"e{n}", [n % 5] * 16))
        ran |= set(names(compute(scheduler)))
    assert "a" in ran


def test_the_first_long_one_is_not_overtaken_by_longer_ones_when_memory_is_short() -> None:
    scheduler = make(num_slots=80)
    scheduler.add(FakeAnswer("a", [1] * 6, max_tokens=24))
    compute(scheduler)
    scheduler.add(FakeDecision("waits", [2] * 44))
    scheduler.add(FakeDecision("small", [3] * 5))
    scheduler.add(FakeDecision("longer", [4] * 45))
    assert names(compute(scheduler)) == ["small"]
    order = [name for _ in range(60) for name in names(compute(scheduler))]
    assert order.index("waits") < order.index("longer")


def test_an_overdue_decision_is_overtaken_by_none_when_memory_is_short() -> None:
    scheduler = make(num_slots=80)
    scheduler.add(FakeAnswer("a", [1] * 6, max_tokens=34))
    compute(scheduler)
    scheduler.add(FakeDecision("waits", [2] * 44))
    assert names(compute(scheduler, now_s=OVERDUE_AFTER_S - 1)) == ["a"]
    scheduler.add(FakeDecision("small", [3] * 5, arrived_s=OVERDUE_AFTER_S))
    assert names(compute(scheduler, now_s=OVERDUE_AFTER_S)) == ["a"]
    order = [name for _ in range(60) for name in names(compute(scheduler, now_s=OVERDUE_AFTER_S))]
    assert order.index("a") < order.index("waits") <= order.index("small")


def test_abort_works_on_the_waiting_and_on_the_running() -> None:
    scheduler = make()
    for n in range(6):
        scheduler.add(FakeAnswer(f"a{n}", [n] * 4, max_tokens=20))
    compute(scheduler)
    for n in range(6):
        scheduler.abort(f"a{n}")
    scheduler.abort("nobody")
    assert not scheduler.has_work


def test_its_repr_names_what_waits() -> None:
    scheduler = make()
    scheduler.add(FakeDecision("d", [1]))
    scheduler.add(FakeAnswer("a", [1], max_tokens=3))
    assert repr(scheduler) == "<Scheduler 1 decisions and 1 answers waiting, 0 running>"
