"""Guesses of work and speed: where they begin, what they learn, and that nothing drives them to extremes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_aio.balancer.cost.estimate import CostModel, WorkerSpeed
from qwen_aio.balancer.cost.reference import UsualSpeed
from qwen_aio.balancer.params import RULES
from qwen_aio.core import EngineRequest, Message, SamplingWish, Usage

amounts = st.floats(0, 1e6)
counts = st.integers(0, 100_000)


def decision(text: str) -> EngineRequest:
    return EngineRequest("r1", "sentiment", text)


def answer(text: str, *, most: int | None = None) -> EngineRequest:
    return EngineRequest("r1", "chat", text, sampling=SamplingWish(max_tokens=most))


@pytest.fixture
def estimator() -> CostModel:
    return CostModel(UsualSpeed(RULES))


# ---- the work of a call ---------------------------------------------------------------------------------------------


def test_it_begins_with_six_tokens_for_ten_characters(estimator: CostModel) -> None:
    expected_s = RULES.fixed_work_s + 60 / RULES.prefill_tokens_per_s
    assert estimator.work_s(decision("很" * 100), "decision") == pytest.approx(expected_s)


def test_an_answer_begins_with_64_new_tokens(estimator: CostModel) -> None:
    more_s = estimator.work_s(answer("你好"), "generation") - estimator.work_s(answer("你好"), "decision")
    assert more_s == pytest.approx(64 / RULES.decode_tokens_per_s)


def test_an_answer_is_never_longer_than_its_caller_wants(estimator: CostModel) -> None:
    more_s = estimator.work_s(answer("你好", most=3), "generation") - estimator.work_s(answer("你好"), "decision")
    assert more_s == pytest.approx(3 / RULES.decode_tokens_per_s)


def test_a_long_text_is_more_work_than_a_short_one(estimator: CostModel) -> None:
    assert estimator.work_s(decision("好" * 200), "decision") > 5 * estimator.work_s(decision("好" * 10), "decision")


def test_earlier_turns_are_work_too(estimator: CostModel) -> None:
    turns = (Message("user", "你好" * 50), Message("assistant", "您好" * 50))
    with_history = EngineRequest("r1", "chat", "再见", history=turns)
    assert estimator.work_s(with_history, "generation") > estimator.work_s(answer("再见"), "generation")


def test_a_text_that_will_be_cut_is_bounded_work(estimator: CostModel) -> None:
    assert estimator.work_s(decision("好" * 1_000_000), "decision") < RULES.max_queued_work_s / 4


def test_it_learns_how_many_tokens_a_text_has(estimator: CostModel) -> None:
    call = decision("word " * 20)
    for _ in range(50):
        estimator.learn(call, "decision", Usage(prompt_tokens=95, cached_tokens=70))
    expected_s = RULES.fixed_work_s + 25 / RULES.prefill_tokens_per_s
    assert estimator.work_s(call, "decision") == pytest.approx(expected_s, rel=0.05)


def test_one_answer_teaches_a_little(estimator: CostModel) -> None:
    before_s = estimator.work_s(answer("你好"), "generation")
    estimator.learn(answer("你好"), "generation", Usage(20, 18, 0))
    assert before_s * 0.8 < estimator.work_s(answer("你好"), "generation") < before_s


def test_it_learns_how_long_the_answers_of_a_task_are(estimator: CostModel) -> None:
    for _ in range(80):
        estimator.learn(answer("你好"), "generation", Usage(20, 18, completion_tokens=10))
    more_s = estimator.work_s(answer("你好"), "generation") - estimator.work_s(answer("你好"), "decision")
    assert more_s == pytest.approx(10 / RULES.decode_tokens_per_s, rel=0.05)


def test_answers_cut_off_by_their_callers_do_not_shorten_the_others(estimator: CostModel) -> None:
    before_s = estimator.work_s(answer("你好" * 50), "generation")
    for _ in range(80):
        estimator.learn(answer("你好" * 50, most=2), "generation", Usage(78, 18, completion_tokens=2))
    assert estimator.work_s(answer("你好" * 50), "generation") == pytest.approx(before_s)


def test_an_answer_cut_off_beyond_the_guess_shows_that_answers_are_longer(estimator: CostModel) -> None:
    before_s = estimator.work_s(answer("你好"), "generation")
    for _ in range(80):
        estimator.learn(answer("你好", most=200), "generation", Usage(20, 18, completion_tokens=200))
    assert estimator.work_s(answer("你好"), "generation") > 2 * before_s


def test_tasks_learn_apart(estimator: CostModel) -> None:
    before_s = estimator.work_s(answer("你好"), "generation")
    for _ in range(50):
        estimator.learn(decision("你好"), "decision", Usage(500, 0))
    assert estimator.work_s(answer("你好"), "generation") == before_s


def test_one_short_text_does_not_spoil_the_guess_for_long_ones(estimator: CostModel) -> None:
    before_s = estimator.work_s(decision("好" * 200), "decision")
    estimator.learn(decision("!"), "decision", Usage(prompt_tokens=20, cached_tokens=8))  # twelve tokens a character
    assert estimator.work_s(decision("好" * 200), "decision") < 1.5 * before_s


# ---- long or short --------------------------------------------------------------------------------------------------


def test_only_a_decision_on_a_long_text_is_long(estimator: CostModel) -> None:
    assert not estimator.is_long(decision("好" * 100), "decision")
    assert estimator.is_long(decision("好" * 400), "decision")
    assert not estimator.is_long(answer("好" * 400), "generation")


def test_a_long_text_is_taken_for_long_although_all_of_them_were_cached(estimator: CostModel) -> None:
    for _ in range(100):
        estimator.learn(decision("好" * 2000), "decision", Usage(prompt_tokens=2000, cached_tokens=2000))
    assert estimator.is_long(decision("好" * 2000), "decision")


def test_what_is_long_hangs_on_how_many_tokens_a_text_has(estimator: CostModel) -> None:
    for _ in range(100):
        estimator.learn(decision("word " * 100), "decision", Usage(prompt_tokens=200, cached_tokens=70))
    assert not estimator.is_long(decision("word " * 90), "decision")


@given(st.lists(st.tuples(st.integers(1, 10_000), counts, counts, counts)), st.integers(1, 10_000))
def test_whatever_was_reported_work_stays_positive(lessons: list[tuple[int, int, int, int]], length: int) -> None:
    estimator = CostModel(UsualSpeed(RULES))
    for characters, prompt, cached, completion in lessons:
        estimator.learn(answer("x" * characters), "generation", Usage(prompt, cached, completion))
    assert RULES.fixed_work_s <= estimator.work_s(answer("x" * length), "generation") < float("inf")


def test_a_speed_is_a_guess_until_the_first_result() -> None:
    speed = WorkerSpeed(RULES, first=3.0)
    assert speed.value == 3.0
    assert not speed.is_known
    speed.record(work_s=1, service_s=1)
    assert speed.is_known


def test_without_a_guess_it_is_the_reference() -> None:
    assert WorkerSpeed(RULES).value == 1.0


def test_it_falls_at_once() -> None:
    speed = WorkerSpeed(RULES)
    speed.record(work_s=1, service_s=4)
    assert speed.value == pytest.approx(0.25)


def test_it_rises_slowly() -> None:
    speed = WorkerSpeed(RULES)
    speed.record(work_s=4, service_s=1)
    assert speed.value == pytest.approx(1.6)  # a fifth of the way


def test_one_hiccup_among_five_costs_a_fifth() -> None:
    speed = WorkerSpeed(RULES)
    for _ in range(4):
        speed.record(work_s=1, service_s=1)
    speed.record(work_s=1, service_s=1000)
    assert speed.value == pytest.approx(0.8, rel=0.01)


def test_only_the_last_five_results_count() -> None:
    speed = WorkerSpeed(RULES)
    for _ in range(100):
        speed.record(work_s=1, service_s=100)
    for _ in range(40):
        speed.record(work_s=2, service_s=1)
    assert speed.value == pytest.approx(2.0, rel=0.01)


def test_a_worker_that_becomes_four_times_slower_is_known_for_it_after_five_results() -> None:
    speed = WorkerSpeed(RULES)
    for _ in range(5):
        speed.record(work_s=1, service_s=1)
    for _ in range(5):
        speed.record(work_s=1, service_s=4)
    assert speed.value == pytest.approx(0.25)


@given(st.lists(st.tuples(amounts, amounts), min_size=1))
def test_whatever_comes_a_speed_is_never_zero(results: list[tuple[float, float]]) -> None:
    speed = WorkerSpeed(RULES)
    for work_s, service_s in results:
        speed.record(work_s=work_s, service_s=service_s)
        assert 0 < speed.value < float("inf")


@given(st.lists(st.floats(0.1, 10), min_size=5), st.floats(0.1, 10))
def test_steady_results_are_what_it_comes_to(before: list[float], rate: float) -> None:
    speed = WorkerSpeed(RULES)
    for past in before:
        speed.record(work_s=past, service_s=1)
    for _ in range(60):
        speed.record(work_s=rate, service_s=1)
    assert speed.value == pytest.approx(rate, rel=0.01)
