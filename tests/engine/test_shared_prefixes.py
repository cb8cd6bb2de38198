"""A prefix that several sequences share is computed once."""

from __future__ import annotations

from dataclasses import replace

from qwen_aio.engine.config import EngineLimits
from qwen_aio.engine.scheduling.scheduler import MIN_SAVED
from tests.engine.fake_sequences import LIMITS, FakeAnswer, FakeDecision, compute, make, names, rows


def test_a_long_shared_prefix_is_computed_once() -> None:
    scheduler = make()
    beginning = [7] * 40
    for n in range(3):
        scheduler.add(FakeDecision(f"d{n}", [*beginning, n, n]))
    steps = [rows(compute(scheduler)) for _ in range(5)]
    assert steps[:4] == [[("d0", 0, 12)], [("d0", 12, 12)], [("d0", 24, 12)], [("d0", 36, 6)]]
    assert steps[4:] == [[("d1", 40, 2), ("d2", 40, 2)]]


def test_a_short_decision_waits_for_the_prefix_of_a_short_one_but_not_of_a_long_one() -> None:
    scheduler = make(limits=replace(LIMITS, max_context=200, max_batch_tokens=80))
    scheduler.add(FakeDecision("long", [*[7] * 36, *range(100, 150)]))
    assert rows(compute(scheduler)) == [("long", 0, 60)]
    scheduler.add(FakeDecision("d", [*[7] * 36, 1, 2]))
    scheduler.add(FakeDecision("e", [*[7] * 36, 3, 4]))
    scheduler.add(FakeDecision("f", [5] * 36))
    assert rows(compute(scheduler)) == [("f", 0, 36), ("d", 0, 38)]
    assert rows(compute(scheduler)) == [("e", 36, 2), ("long", 60, 26)]


def test_for_a_short_shared_prefix_nothing_waits() -> None:
    scheduler = make(limits=replace(LIMITS, max_batch_tokens=80))
    for n in range(3):
        scheduler.add(FakeDecision(f"d{n}", [*[7] * (MIN_SAVED - 1), n, n]))
    scheduler.admit(now_s=0.0)
    assert scheduler.num_running == 3


def test_nothing_waits_for_a_sequence_with_far_more_to_compute() -> None:
    limits = EngineLimits(max_context=200, max_running=4, max_answers=2, max_batch_tokens=32)
    scheduler = make(num_slots=400, limits=limits)
    scheduler.add(FakeAnswer("a", [*[7] * 40, *range(100, 200)], max_tokens=5))
    compute(scheduler)
    scheduler.add(FakeDecision("d", [*[7] * 40, 1, 2]))
    assert "d" in names(compute(scheduler))


def test_no_decision_waits_for_an_answer_s_prompt() -> None:
    scheduler = make()
    scheduler.add(FakeAnswer("a", [7] * 40, max_tokens=5))
    compute(scheduler)
    scheduler.add(FakeDecision("d", [*[7] * 38, 1, 2]))
    scheduler.add(FakeDecision("short", [1, 2]))
    assert names(compute(scheduler)) == ["short"]
    assert "d" in names(compute(scheduler))


def test_an_answer_s_prompt_is_shared_while_it_goes_on() -> None:
    scheduler = make()
    prompt = [*range(40)]
    scheduler.add(FakeAnswer("a", prompt, max_tokens=20))
    scheduler.add(FakeAnswer("b", prompt, max_tokens=20))
    steps = [compute(scheduler) for _ in range(5)]
    assert [names(spans) for spans in steps] == [["a"]] * 3 + [["a", "b"]] * 2
    assert [(span.start, span.count) for span in steps[3]] == [(40, 1), (39, 1)]
    assert [(span.start, span.count) for span in steps[4]] == [(41, 1), (40, 1)]
    for name in ("a", "b"):
        scheduler.abort(name)
    scheduler.add(FakeDecision("d", [*prompt, 9, 9, 9, 9]))
    assert [(span.start, span.count) for span in compute(scheduler)] == [(42, 2)]  # what came after it is kept, too
