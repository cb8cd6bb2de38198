"""What a balancer counts for Prometheus besides requests: its workers, its queue, its attempts.

Only workers of the table have rows, so the ids of workers that have left take no memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from qwen_aio.balancer.snapshot import AdminState, BreakerState, HealthState, Snapshot, WorkerRow
from qwen_aio.serving.metrics import PREFIX, RequestMetrics

WORKER = f"{PREFIX}worker_"


class BalancerMetrics(Collector):
    """`requests` are those that were done; the rest is read off `snapshot` when somebody asks."""

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        self._snapshot = snapshot
        self._picks: Counter[str] = Counter()  # by worker, as are the others
        self._retries: Counter[str] = Counter()
        self._redispatches: Counter[str] = Counter()
        self.requests = RequestMetrics(running=lambda: snapshot().in_flight, waiting=lambda: snapshot().waiting)
        self.registry = self.requests.registry
        self.registry.register(self)

    def picked(self, worker: str, *, after: str | None) -> None:
        """`worker` gets an attempt; `after` is the worker of the failed attempt before it, if any."""
        self._picks[worker] += 1
        if after is not None:
            self._retries[after] += 1
            self._redispatches[after] += after != worker

    def collect(self) -> Iterator[Metric]:
        """Called by the registry for every `GET /metrics`."""
        snapshot = self._snapshot()
        rows = snapshot.workers
        yield from _of_service(snapshot)
        yield _states("admin_state", "What an operator set", rows, get_args(AdminState), lambda row: row.admin)
        yield _states("health_state", "What the balancer sees", rows, get_args(HealthState), lambda row: row.health)
        yield _states("breaker_state", "The circuit breaker", rows, get_args(BreakerState), lambda row: row.breaker)
        yield _status_age(rows)
        yield _counts("picks", "Attempts that it got", rows, self._picks)
        yield _counts("retries", "Attempts that followed one that failed on it", rows, self._retries)
        yield _counts("redispatches", "Those of them that another worker got", rows, self._redispatches)


def _of_service(snapshot: Snapshot) -> Iterator[Metric]:
    yield GaugeMetricFamily(f"{PREFIX}workers_ready", "Workers that take requests", snapshot.ready)
    # Without a ready worker it is what the first one to come would have to do.
    queue_s = snapshot.waiting_work_s / max(snapshot.ready, 1)
    yield GaugeMetricFamily(f"{PREFIX}queue_seconds", "Predicted seconds of waiting work, per ready worker", queue_s)
    yield CounterMetricFamily(f"{PREFIX}requests", "Engine requests that ended, however they did", snapshot.requests)
    yield CounterMetricFamily(f"{PREFIX}requests_failed", "Those that failed by no client's fault", snapshot.failures)


def _states(
    name: str, description: str, rows: Sequence[WorkerRow], states: Sequence[str], state: Callable[[WorkerRow], str]
) -> Metric:
    """1 for the state that a worker is in, 0 for the others."""
    family = GaugeMetricFamily(f"{WORKER}{name}", description, labels=("worker", "state"))
    for row in rows:
        for each in states:
            family.add_metric([row.id, each], float(state(row) == each))
    return family


def _status_age(rows: Sequence[WorkerRow]) -> Metric:
    family = GaugeMetricFamily(f"{WORKER}status_age_seconds", "Since its report last moved", labels=("worker",))
    for row in rows:
        if row.status_age_s is not None:
            family.add_metric([row.id], row.status_age_s)
    return family


def _counts(name: str, description: str, rows: Sequence[WorkerRow], counts: Counter[str]) -> Metric:
    """`counts` of the workers in `rows`; the others are forgotten."""
    for worker in counts.keys() - {row.id for row in rows}:
        del counts[worker]
    family = CounterMetricFamily(f"{WORKER}{name}", description, labels=("worker",))
    for row in rows:
        family.add_metric([row.id], counts[row.id])
    return family
