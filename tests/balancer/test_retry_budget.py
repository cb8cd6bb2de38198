from hypothesis import given
from hypothesis import strategies as st

from qwen_aio.balancer.dispatch.retry_budget import MAX_BALANCE, RetryBudget
from qwen_aio.balancer.params import PARAMS
from tests.fakes import FakeClock


@given(st.lists(st.sampled_from(["request", "retry", "second"]), max_size=300))
def test_retries_stay_within_a_share_of_the_requests_and_one_a_second(steps):
    clock = FakeClock()
    budget = RetryBudget(PARAMS, clock)
    allowed = 0
    for step in steps:
        match step:
            case "request":
                budget.earn()
            case "second":
                clock.advance(1.0)
            case "retry":
                allowed += budget.spend()
    most = MAX_BALANCE / 2 + 0.2 * steps.count("request") + steps.count("second")
    assert allowed <= most + 1e-9


def test_when_all_fail_the_budget_is_soon_spent():
    budget = RetryBudget(PARAMS, FakeClock())
    retries = 0
    for _ in range(1000):
        budget.earn()
        retries += budget.spend()
    assert retries <= 0.2 * 1000 + MAX_BALANCE
