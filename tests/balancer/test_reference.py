"""What tokens cost here, learnt from what workers report."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_aio.balancer.cost.reference import UsualSpeed
from qwen_aio.balancer.params import RULES
from qwen_aio.core import Timings, Usage

COSTS = st.floats(0, 1e6, allow_nan=False)
COUNTS = st.integers(0, 4096)


def learnt(*calls: tuple[Usage, Timings]) -> UsualSpeed:
    reference = UsualSpeed(RULES)
    for number in range(500):
        reference.learn(*calls[number % len(calls)])
    return reference


def test_until_somebody_has_told_it_is_what_the_rules_say():
    reference = UsualSpeed(RULES)
    assert reference.seconds(0, 0) == pytest.approx(RULES.fixed_work_s)
    assert reference.seconds(150, 30) == pytest.approx(RULES.fixed_work_s + 2.0)


def test_where_length_hardly_matters_a_long_call_is_hardly_more_work():
    reference = learnt((Usage(60, 50, 0), Timings(0, 6.0, 0, 0)), (Usage(200, 50, 0), Timings(0, 7.0, 0, 0)))
    assert reference.seconds(10, 0) == pytest.approx(0.006, rel=0.05)
    assert reference.seconds(150, 0) == pytest.approx(0.007, rel=0.05)


def test_where_a_token_is_a_token_twice_as_many_are_twice_the_work():
    reference = learnt((Usage(60, 50, 0), Timings(0, 50.0, 0, 0)), (Usage(200, 50, 0), Timings(0, 750.0, 0, 0)))
    assert reference.seconds(100, 0) == pytest.approx(0.5, rel=0.05)
    assert reference.seconds(200, 0) == pytest.approx(1.0, rel=0.05)


def test_what_was_cached_was_no_work():
    reference = learnt((Usage(60, 50, 0), Timings(0, 50.0, 0, 0)), (Usage(200, 50, 0), Timings(0, 750.0, 0, 0)))
    assert reference.seconds_of(Usage(1000, 900, 0)) == pytest.approx(reference.seconds(100, 0))


def test_generated_tokens_cost_what_they_took_of_late():
    reference = learnt((Usage(60, 50, 20), Timings(0, 10.0, 100.0, 0)))
    assert reference.seconds(10, 40) - reference.seconds(10, 0) == pytest.approx(0.2, rel=0.05)


@given(st.lists(st.tuples(COUNTS, COUNTS, COUNTS, COSTS, COSTS), max_size=50), COUNTS, COUNTS)
def test_whatever_is_reported_no_call_is_free_and_no_length_makes_it_cheaper(reports, prefilled, generated):
    reference = UsualSpeed(RULES)
    for prompt, cached, new, prefill_ms, decode_ms in reports:
        reference.learn(Usage(prompt, cached, new), Timings(0, prefill_ms, decode_ms, 0))
    seconds = reference.seconds(prefilled, generated)
    assert 0 < seconds < float("inf")
    assert reference.seconds(prefilled + 100, generated) >= seconds * (1 - 1e-9)
    assert reference.seconds(prefilled, generated + 100) >= seconds * (1 - 1e-9)
