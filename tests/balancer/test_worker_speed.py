"""A worker's speed: how fast it falls and rises, and that no result drives it to extremes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_aio.balancer.cost.worker_speed import WorkerSpeed
from qwen_aio.balancer.params import PARAMS

amounts = st.floats(0, 1e6)


def test_a_speed_is_a_guess_until_the_first_result() -> None:
    speed = WorkerSpeed(PARAMS, first=3.0)
    assert speed.value == 3.0
    assert not speed.is_known
    speed.record(work_s=1, service_s=1)
    assert speed.is_known


def test_without_a_guess_it_is_the_reference() -> None:
    assert WorkerSpeed(PARAMS).value == 1.0


def test_it_falls_at_once() -> None:
    speed = WorkerSpeed(PARAMS)
    speed.record(work_s=1, service_s=4)
    assert speed.value == pytest.approx(0.25)


def test_it_rises_slowly() -> None:
    speed = WorkerSpeed(PARAMS)
    speed.record(work_s=4, service_s=1)
    assert speed.value == pytest.approx(1.6)  # a fifth of the way


def test_one_hiccup_among_five_costs_a_fifth() -> None:
    speed = WorkerSpeed(PARAMS)
    for _ in range(4):
        speed.record(work_s=1, service_s=1)
    speed.record(work_s=1, service_s=1000)
    assert speed.value == pytest.approx(0.8, rel=0.01)


def test_only_the_last_five_results_count() -> None:
    speed = WorkerSpeed(PARAMS)
    for _ in range(100):
        speed.record(work_s=1, service_s=100)
    for _ in range(40):
        speed.record(work_s=2, service_s=1)
    assert speed.value == pytest.approx(2.0, rel=0.01)


def test_a_worker_that_becomes_four_times_slower_is_known_for_it_after_five_results() -> None:
    speed = WorkerSpeed(PARAMS)
    for _ in range(5):
        speed.record(work_s=1, service_s=1)
    for _ in range(5):
        speed.record(work_s=1, service_s=4)
    assert speed.value == pytest.approx(0.25)


@given(st.lists(st.tuples(amounts, amounts), min_size=1))
def test_whatever_comes_a_speed_is_never_zero(results: list[tuple[float, float]]) -> None:
    speed = WorkerSpeed(PARAMS)
    for work_s, service_s in results:
        speed.record(work_s=work_s, service_s=service_s)
        assert 0 < speed.value < float("inf")


@given(st.lists(st.floats(0.1, 10), min_size=5), st.floats(0.1, 10))
def test_steady_results_are_what_it_comes_to(before: list[float], rate: float) -> None:
    speed = WorkerSpeed(PARAMS)
    for past in before:
        speed.record(work_s=past, service_s=1)
    for _ in range(60):
        speed.record(work_s=rate, service_s=1)
    assert speed.value == pytest.approx(rate, rel=0.01)
