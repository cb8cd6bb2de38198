"""The policies: whom each of them prefers, and that equals are treated equally."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_aio.balancer.cost.policies import POLICIES, WorkerLoad, cost
from qwen_aio.balancer.params import PARAMS

IDLE = WorkerLoad(
    id="qwen-1",
    in_flight=0,
    work_s=0.0,
    speed=1.0,
    cpu_jitter=0.0,
    jitter_age_s=0.0,
    failure_rate=0.0,
    is_demoted=False,
    queue_depth=0,
    latency_ms=None,
    last_used=0.0,
)
NAMES = sorted(POLICIES)
WORK_S = 0.1

amounts = st.floats(0, 1e6)
candidates_of_any_kind = st.lists(
    st.builds(
        WorkerLoad,
        id=st.text(max_size=3),
        in_flight=st.integers(0, 8),
        work_s=amounts,
        speed=st.floats(0.01, 1000),
        cpu_jitter=amounts,
        jitter_age_s=amounts,
        failure_rate=st.floats(0, 1),
        is_demoted=st.booleans(),
        queue_depth=st.integers(0, 1000),
        latency_ms=st.none() | amounts,
        last_used=amounts,
    ),
    max_size=6,
)


def chosen(name: str, *candidates: WorkerLoad, work_s: float = WORK_S) -> str:
    choice = POLICIES[name](PARAMS, Random(1)).choose(work_s, candidates)
    assert choice is not None
    return choice.load.id


def why(name: str, *candidates: WorkerLoad) -> str:
    choice = POLICIES[name](PARAMS, Random(1)).choose(WORK_S, candidates)
    assert choice is not None
    return choice.why()


def total(load: WorkerLoad) -> float:
    return cost(load, WORK_S, PARAMS).total


def spread(name: str, *, num_requests: int, has_clock: bool) -> Counter[str]:
    """Who gets how many, when everybody is idle again each time. Without a clock all times are the same."""
    policy = POLICIES[name](PARAMS, Random(1))
    workers = {worker_id: replace(IDLE, id=worker_id) for worker_id in ("qwen-1", "qwen-2", "qwen-3")}
    counts: Counter[str] = Counter()
    for number in range(1, num_requests + 1):
        choice = policy.choose(WORK_S, list(workers.values()))
        assert choice is not None
        counts[choice.load.id] += 1
        workers[choice.load.id] = replace(choice.load, last_used=float(number) if has_clock else 0.0)
    return counts


# ---- all of them ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_without_candidates_none_is_chosen(name: str) -> None:
    assert POLICIES[name](PARAMS, Random(1)).choose(WORK_S, []) is None


@pytest.mark.parametrize("name", NAMES)
@given(candidates=candidates_of_any_kind, work_s=st.floats(0.001, 1000))
def test_one_of_the_candidates_is_chosen(name: str, candidates: list[WorkerLoad], work_s: float) -> None:
    choice = POLICIES[name](PARAMS, Random(1)).choose(work_s, candidates)
    assert choice.load in candidates if candidates else choice is None


@pytest.mark.parametrize("name", [name for name in NAMES if name != "random"])
def test_equals_take_turns(name: str) -> None:
    assert set(spread(name, num_requests=300, has_clock=True).values()) == {100}


@pytest.mark.parametrize("name", NAMES)
def test_equals_share_evenly_even_if_no_clock_tells_them_apart(name: str) -> None:
    counts = spread(name, num_requests=900, has_clock=False)
    chi_square = sum((counts[worker_id] - 300) ** 2 / 300 for worker_id in ("qwen-1", "qwen-2", "qwen-3"))
    assert chi_square < 13.8  # two degrees of freedom: chance exceeds it once in a thousand


# ---- weighted -------------------------------------------------------------------------------------------------------


def test_the_cost_of_an_idle_worker_is_the_request_itself() -> None:
    assert total(IDLE) == pytest.approx(WORK_S)


def test_the_cost_is_the_product_of_what_is_shown() -> None:
    worker = replace(IDLE, work_s=0.9, speed=0.5, cpu_jitter=25.0, jitter_age_s=0.0, failure_rate=0.25, is_demoted=True)
    terms = cost(worker, WORK_S, PARAMS)
    assert terms.queue_s == pytest.approx(2.0)
    assert terms.jitter_factor == pytest.approx(1.25)
    assert terms.failure_factor == pytest.approx(2.0)
    assert terms.demotion_factor == 4.0
    assert terms.total == pytest.approx(20.0)


def test_jitter_counts_up_to_a_limit_and_its_age_takes_it_back() -> None:
    full = replace(IDLE, cpu_jitter=50.0)
    assert total(full) == pytest.approx(1.5 * WORK_S)
    assert total(replace(full, cpu_jitter=500.0)) == total(full)
    assert total(replace(full, jitter_age_s=60.0)) == pytest.approx(WORK_S, rel=0.001)
    assert total(replace(full, jitter_age_s=float("inf"))) == WORK_S


@pytest.mark.parametrize(
    "worse",
    [
        replace(IDLE, work_s=0.1),
        replace(IDLE, speed=0.9),
        replace(IDLE, cpu_jitter=5.0),
        replace(IDLE, failure_rate=0.1),
        replace(IDLE, is_demoted=True),
    ],
)
def test_whatever_speaks_against_a_worker_sends_work_elsewhere(worse: WorkerLoad) -> None:
    assert chosen("weighted", replace(worse, id="worse", last_used=-1.0), replace(IDLE, id="better")) == "better"


def test_a_fast_worker_takes_more_work_before_a_slow_one_gets_any() -> None:
    slow = replace(IDLE, id="slow", speed=0.25)
    assert chosen("weighted", slow, replace(IDLE, id="fast", work_s=2 * WORK_S)) == "fast"
    assert chosen("weighted", slow, replace(IDLE, id="fast", work_s=4 * WORK_S)) == "slow"


def test_many_short_requests_weigh_less_than_one_long_answer() -> None:
    decisions = replace(IDLE, id="decisions", in_flight=5, work_s=0.5)
    answer = replace(IDLE, id="answer", in_flight=1, work_s=8.0)
    assert chosen("weighted", decisions, answer) == "decisions"
    assert chosen("least_loaded", decisions, answer) == "answer"


def test_a_worker_that_fails_instantly_does_not_attract() -> None:
    failing = replace(IDLE, id="failing", failure_rate=0.9, speed=2.0, latency_ms=1.0)
    assert chosen("weighted", failing, replace(IDLE, id="working", work_s=WORK_S)) == "working"


def test_a_demoted_worker_gets_work_only_when_the_others_are_much_busier() -> None:
    demoted = replace(IDLE, id="demoted", is_demoted=True)
    assert chosen("weighted", demoted, replace(IDLE, id="other", work_s=2 * WORK_S)) == "other"
    assert chosen("weighted", demoted, replace(IDLE, id="other", work_s=4 * WORK_S)) == "demoted"


@given(candidates=candidates_of_any_kind.filter(bool), work_s=st.floats(0.001, 1000))
def test_no_candidate_is_cheaper_than_the_one_chosen(candidates: list[WorkerLoad], work_s: float) -> None:
    choice = POLICIES["weighted"](PARAMS, Random(1)).choose(work_s, candidates)
    assert choice is not None
    assert cost(choice.load, work_s, PARAMS).total == min(cost(c, work_s, PARAMS).total for c in candidates)


# ---- the baselines --------------------------------------------------------------------------------------------------


def test_round_robin_takes_turns_however_busy_a_worker_is() -> None:
    busy = replace(IDLE, id="busy", in_flight=7, work_s=50.0, last_used=1.0)
    assert chosen("round_robin", busy, replace(IDLE, id="idle", last_used=2.0)) == "busy"


def test_least_loaded_counts_requests() -> None:
    assert chosen("least_loaded", replace(IDLE, id="two", in_flight=2), replace(IDLE, id="one", in_flight=1)) == "one"


@pytest.mark.parametrize("signal", [{"in_flight": 2}, {"queue_depth": 2}, {"latency_ms": 90.0}, {"cpu_jitter": 3.0}])
def test_each_of_the_three_signals_counts_in_the_linear_sum(signal: dict[str, float]) -> None:
    usual = replace(IDLE, in_flight=1, latency_ms=80.0, cpu_jitter=1.0)
    worse = replace(usual, id="worse", last_used=-1.0, **signal)
    assert chosen("linear", worse, replace(usual, id="usual")) == "usual"


def test_in_the_linear_sum_two_signals_outweigh_one() -> None:
    queue = replace(IDLE, id="queue", in_flight=4, latency_ms=0.0)
    others = replace(IDLE, id="others", latency_ms=1000.0, cpu_jitter=10.0)
    assert chosen("linear", queue, others) == "queue"


def test_in_the_linear_sum_a_worker_without_a_latency_is_not_taken_for_fast() -> None:
    unknown = replace(IDLE, id="unknown", latency_ms=None)
    fast, slow = replace(IDLE, id="fast", latency_ms=10.0), replace(IDLE, id="slow", latency_ms=1000.0)
    assert chosen("linear", unknown, fast, slow) == "fast"


# ---- reasons --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("weighted", "cost 0.150: queue 0.100 s, jitter x1.50"),
        ("linear", "linear 1.500: queue 0.50, latency 0.00, jitter 1.00"),
        ("least_loaded", "least loaded: 1 in flight"),
        ("round_robin", "round robin"),
        ("random", "random"),
    ],
)
def test_the_reason_states_the_terms_of_the_policy_itself(name: str, reason: str) -> None:
    load = replace(IDLE, id="chosen", in_flight=1, cpu_jitter=50.0)
    busy = replace(load, id="busy", in_flight=2, work_s=9.0, cpu_jitter=50.0, last_used=1.0)
    candidates = (load,) if name == "random" else (load, busy)
    assert why(name, *candidates) == reason


def test_factors_that_change_nothing_are_left_out_of_the_reason() -> None:
    assert why("weighted", IDLE) == "cost 0.100: queue 0.100 s"
    worse = replace(IDLE, failure_rate=0.25, is_demoted=True)
    assert why("weighted", worse) == "cost 0.800: queue 0.100 s, failures x2.00, demotion x4.00"
