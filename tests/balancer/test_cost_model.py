"""Predictions of work: where they begin, what they learn, and that no report drives them to extremes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_aio.balancer.cost.cost_model import EXPLAINED_WORK, CostModel
from qwen_aio.balancer.params import PARAMS
from qwen_aio.core import EngineRequest, Message, SamplingWish
from qwen_aio.result import Timings, Usage

amounts = st.floats(0, 1e6, allow_nan=False)
counts = st.integers(0, 100_000)


def decision(text: str) -> EngineRequest:
    return EngineRequest("r1", "sentiment", text)


def answer(text: str, *, most: int | None = None) -> EngineRequest:
    return EngineRequest("r1", "chat", text, sampling=SamplingWish(max_tokens=most))


@pytest.fixture
def costs() -> CostModel:
    return CostModel(PARAMS)


# ---- the work of a request ---------------------------------------------------------------------------------------------


def test_it_begins_with_six_tokens_for_ten_characters(costs: CostModel) -> None:
    expected_s = PARAMS.fixed_work_s + 60 / PARAMS.prefill_tokens_per_s
    assert costs.work_s(decision("很" * 100), "decision") == pytest.approx(expected_s)


def test_an_explained_decision_is_the_work_of_several(costs: CostModel) -> None:
    plain = decision("很" * 100)
    explained_s = costs.work_s(replace(plain, explain=True), "decision")
    assert explained_s == pytest.approx(EXPLAINED_WORK * costs.work_s(plain, "decision"))


def test_an_answer_begins_with_64_new_tokens(costs: CostModel) -> None:
    more_s = costs.work_s(answer("你好"), "generation") - costs.work_s(answer("你好"), "decision")
    assert more_s == pytest.approx(64 / PARAMS.decode_tokens_per_s)


def test_an_answer_is_never_longer_than_its_client_wants(costs: CostModel) -> None:
    more_s = costs.work_s(answer("你好", most=3), "generation") - costs.work_s(answer("你好"), "decision")
    assert more_s == pytest.approx(3 / PARAMS.decode_tokens_per_s)


def test_a_long_text_is_more_work_than_a_short_one(costs: CostModel) -> None:
    assert costs.work_s(decision("好" * 200), "decision") > 5 * costs.work_s(decision("好" * 10), "decision")


def test_earlier_turns_are_work_too(costs: CostModel) -> None:
    turns = (Message("user", "你好" * 50), Message("assistant", "您好" * 50))
    with_history = EngineRequest("r1", "chat", "再见", history=turns)
    assert costs.work_s(with_history, "generation") > costs.work_s(answer("再见"), "generation")


def test_a_text_that_will_be_cut_is_bounded_work(costs: CostModel) -> None:
    assert costs.work_s(decision("好" * 1_000_000), "decision") < PARAMS.max_queued_work_s / 4


def test_it_learns_how_many_tokens_a_text_has(costs: CostModel) -> None:
    request = decision("word " * 20)
    for _ in range(50):
        costs.learn_tokens(request, "decision", Usage(prompt_tokens=100, cached_tokens=70, cut_tokens=5))
    expected_s = PARAMS.fixed_work_s + 25 / PARAMS.prefill_tokens_per_s
    assert costs.work_s(request, "decision") == pytest.approx(expected_s, rel=0.05)


def test_one_answer_teaches_a_little(costs: CostModel) -> None:
    before_s = costs.work_s(answer("你好"), "generation")
    costs.learn_tokens(answer("你好"), "generation", Usage(20, 18, 0))
    assert before_s * 0.8 < costs.work_s(answer("你好"), "generation") < before_s


def test_it_learns_how_long_the_answers_of_a_task_are(costs: CostModel) -> None:
    for _ in range(80):
        costs.learn_tokens(answer("你好"), "generation", Usage(20, 18, completion_tokens=10))
    more_s = costs.work_s(answer("你好"), "generation") - costs.work_s(answer("你好"), "decision")
    assert more_s == pytest.approx(10 / PARAMS.decode_tokens_per_s, rel=0.05)


def test_answers_cut_off_by_their_clients_do_not_shorten_the_others(costs: CostModel) -> None:
    before_s = costs.work_s(answer("你好" * 50), "generation")
    for _ in range(80):
        costs.learn_tokens(answer("你好" * 50, most=2), "generation", Usage(78, 18, completion_tokens=2))
    assert costs.work_s(answer("你好" * 50), "generation") == pytest.approx(before_s)


def test_an_answer_cut_off_beyond_the_guess_shows_that_answers_are_longer(costs: CostModel) -> None:
    before_s = costs.work_s(answer("你好"), "generation")
    for _ in range(80):
        costs.learn_tokens(answer("你好", most=200), "generation", Usage(20, 18, completion_tokens=200))
    assert costs.work_s(answer("你好"), "generation") > 2 * before_s


def test_tasks_learn_apart(costs: CostModel) -> None:
    before_s = costs.work_s(answer("你好"), "generation")
    for _ in range(50):
        costs.learn_tokens(decision("你好"), "decision", Usage(500, 0))
    assert costs.work_s(answer("你好"), "generation") == before_s


def test_one_short_text_does_not_spoil_the_guess_for_long_ones(costs: CostModel) -> None:
    before_s = costs.work_s(decision("好" * 200), "decision")
    costs.learn_tokens(decision("!"), "decision", Usage(prompt_tokens=20, cached_tokens=8))  # twelve tokens a character
    assert costs.work_s(decision("好" * 200), "decision") < 1.5 * before_s


# ---- long or short --------------------------------------------------------------------------------------------------


def test_only_a_decision_on_a_long_text_is_long(costs: CostModel) -> None:
    assert not costs.is_long(decision("好" * 100), "decision")
    assert costs.is_long(decision("好" * 400), "decision")
    assert not costs.is_long(answer("好" * 400), "generation")


def test_a_long_text_is_taken_for_long_although_all_of_them_were_cached(costs: CostModel) -> None:
    for _ in range(100):
        costs.learn_tokens(decision("好" * 2000), "decision", Usage(prompt_tokens=2000, cached_tokens=2000))
    assert costs.is_long(decision("好" * 2000), "decision")


def test_what_is_long_hangs_on_how_many_tokens_a_text_has(costs: CostModel) -> None:
    for _ in range(100):
        costs.learn_tokens(decision("word " * 100), "decision", Usage(prompt_tokens=200, cached_tokens=70))
    assert not costs.is_long(decision("word " * 90), "decision")


@given(st.lists(st.tuples(st.integers(1, 10_000), counts, counts, counts)), st.integers(1, 10_000))
def test_whatever_was_reported_work_stays_positive(lessons: list[tuple[int, int, int, int]], length: int) -> None:
    costs = CostModel(PARAMS)
    for characters, prompt, cached, completion in lessons:
        costs.learn_tokens(answer("x" * characters), "generation", Usage(prompt, cached, completion))
    assert PARAMS.fixed_work_s <= costs.work_s(answer("x" * length), "generation") < float("inf")


# ---- seconds of tokens ------------------------------------------------------------------------------------------------


def learnt(*requests: tuple[Usage, Timings]) -> CostModel:
    costs = CostModel(PARAMS)
    for number in range(500):
        costs.learn_seconds(*requests[number % len(requests)])
    return costs


def test_until_a_worker_reports_a_token_costs_what_the_params_say():
    costs = CostModel(PARAMS)
    assert costs.seconds(0, 0) == pytest.approx(PARAMS.fixed_work_s)
    assert costs.seconds(150, 30) == pytest.approx(PARAMS.fixed_work_s + 2.0)


def test_where_length_hardly_matters_a_long_request_is_hardly_more_work():
    costs = learnt((Usage(60, 50, 0), Timings(0, 6.0, 0, 0)), (Usage(200, 50, 0), Timings(0, 7.0, 0, 0)))
    assert costs.seconds(10, 0) == pytest.approx(0.006, rel=0.05)
    assert costs.seconds(150, 0) == pytest.approx(0.007, rel=0.05)


def test_where_a_token_is_a_token_twice_as_many_are_twice_the_work():
    costs = learnt((Usage(60, 50, 0), Timings(0, 50.0, 0, 0)), (Usage(200, 50, 0), Timings(0, 750.0, 0, 0)))
    assert costs.seconds(100, 0) == pytest.approx(0.5, rel=0.05)
    assert costs.seconds(200, 0) == pytest.approx(1.0, rel=0.05)


def test_what_was_cached_was_no_work():
    costs = learnt((Usage(60, 50, 0), Timings(0, 50.0, 0, 0)), (Usage(200, 50, 0), Timings(0, 750.0, 0, 0)))
    assert costs.seconds_of(Usage(1000, 900, 0)) == pytest.approx(costs.seconds(100, 0))


def test_generated_tokens_cost_what_they_took_of_late():
    costs = learnt((Usage(60, 50, 20), Timings(0, 10.0, 100.0, 0)))
    assert costs.seconds(10, 40) - costs.seconds(10, 0) == pytest.approx(0.2, rel=0.05)


@given(
    st.lists(
        st.tuples(st.integers(0, 4096), st.integers(0, 4096), st.integers(0, 4096), amounts, amounts), max_size=50
    ),
    st.integers(0, 4096),
    st.integers(0, 4096),
)
def test_whatever_is_reported_no_request_is_free_and_no_length_makes_it_cheaper(reports, prefilled, generated):
    costs = CostModel(PARAMS)
    for prompt, cached, new, prefill_ms, decode_ms in reports:
        costs.learn_seconds(Usage(prompt, cached, new), Timings(0, prefill_ms, decode_ms, 0))
    seconds = costs.seconds(prefilled, generated)
    assert 0 < seconds < float("inf")
    assert costs.seconds(prefilled + 100, generated) >= seconds * (1 - 1e-9)
    assert costs.seconds(prefilled, generated + 100) >= seconds * (1 - 1e-9)
