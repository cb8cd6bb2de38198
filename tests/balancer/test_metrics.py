"""What a balancer shows of its workers and its queue."""

from dataclasses import replace

import pytest

from qwen_aio.balancer.metrics import BalancerMetrics
from tests.balancer.fake_view import NEW, ROW, SECOND, FakeView


class Shown:
    """A balancer's metrics, and the view they are read off."""

    def __init__(self, *rows) -> None:
        self.view = FakeView(*rows)
        self.metrics = BalancerMetrics(self.view.snapshot)

    def __call__(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"qwen_aio_{name}", labels)


def test_a_worker_is_in_one_state_of_each_kind():
    shown = Shown(replace(ROW, admin="drain", health="demoted", breaker="half_open"))
    for name, states, current in (
        ("admin_state", ("ready", "drain", "maint"), "drain"),
        ("health_state", ("starting", "up", "demoted", "suspect", "down"), "demoted"),
        ("breaker_state", ("closed", "open", "half_open"), "half_open"),
    ):
        found = {state: shown(f"worker_{name}", worker="qwen-1", state=state) for state in states}
        assert found == {state: float(state == current) for state in states}


def test_the_age_of_a_report_is_shown_once_there_is_one():
    shown = Shown(ROW, NEW)
    assert shown("worker_status_age_seconds", worker="qwen-1") == 0.84
    assert shown("worker_status_age_seconds", worker="qwen-3") is None


@pytest.mark.parametrize(("rows", "queue_s"), [((ROW,), 1.234), ((ROW, SECOND), 0.617), ((NEW,), 1.234)])
def test_queue_seconds_are_those_of_the_waiting_work_for_each_ready_worker(rows, queue_s):
    shown = Shown(*rows)
    assert shown("queue_seconds") == pytest.approx(queue_s)


def test_workers_and_requests_of_the_whole_service():
    shown = Shown(ROW, SECOND, NEW)
    shown.view.finish("r1")
    shown.view.finish("r2", error=RuntimeError())
    names = ("workers_ready", "requests_running", "requests_waiting", "requests_total")
    assert [shown(name) for name in (*names, "requests_failed_total")] == [2, 3, 2, 2, 1]


def test_a_worker_without_any_attempt_is_counted_from_zero():
    """Otherwise the first one would be no rise for `rate`."""
    shown = Shown(ROW)
    names = ("picks", "retries", "redispatches")
    assert [shown(f"worker_{name}_total", worker="qwen-1") for name in names] == [0, 0, 0]


def test_the_counts_of_a_worker_that_has_left_are_forgotten():
    shown = Shown(ROW, SECOND)
    shown.metrics.picked("qwen-2", after="qwen-1")
    assert shown("worker_picks_total", worker="qwen-2") == 1
    gone = shown.view.rows.pop("qwen-2")
    assert shown("worker_picks_total", worker="qwen-2") is None
    shown.view.rows["qwen-2"] = gone
    assert shown("worker_picks_total", worker="qwen-2") == 0
    assert shown("worker_redispatches_total", worker="qwen-1") == 1
