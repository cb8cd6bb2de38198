"""Who takes the next request: the candidate with the lowest score.

Equal scores go to whoever has waited longest for work, and chance decides what is left: were it the order of the list,
its first entry would get everything while nobody is busy. Policies see only workers that may take the request now, and
change nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from statistics import fmean
from typing import Protocol

from qwen_aio.balancer.params import Params
from qwen_aio.balancer.snapshot import Cost


@dataclass(frozen=True)
class WorkerLoad:
    """What is known of a worker that could take the request. Work is in reference seconds (estimate.py)."""

    id: str
    in_flight: int  # our own count of requests bound to it
    work_s: float  # of those
    speed: float  # work it does in a second; above 0
    cpu_jitter: float  # percent points
    jitter_age_s: float
    failure_rate: float  # 0..1
    is_demoted: bool
    queue_depth: int  # its last report: requests waiting inside it
    latency_ms: float | None  # its last report: mean of the last five
    last_used: float  # the turn at which it last got a request; only the order counts


class Policy(Protocol):
    """Chance aside, the same question gets the same answer."""

    def choose(self, work_s: float, candidates: Sequence[WorkerLoad]) -> WorkerLoad | None:
        """Who takes a request of `work_s`; None if there is nobody."""


def cost(candidate: WorkerLoad, work_s: float, rules: Params) -> Cost:
    """Seconds until a request of `work_s` would be done, times what speaks against the worker (BALANCING 2)."""
    queue_s = (candidate.work_s + work_s) / candidate.speed
    jitter = min(candidate.cpu_jitter / rules.full_jitter, 1.0) * math.exp(-candidate.jitter_age_s / rules.jitter_age_s)
    jitter_factor = 1 + rules.jitter_weight * jitter
    failure_factor = 1 + rules.failure_weight * candidate.failure_rate
    demotion_factor = rules.demoted_factor if candidate.is_demoted else 1.0
    total = queue_s * jitter_factor * failure_factor * demotion_factor
    return Cost(queue_s, jitter_factor, failure_factor, demotion_factor, total)


def weighted(candidates: Sequence[WorkerLoad], work_s: float, rules: Params) -> list[float]:
    return [cost(candidate, work_s, rules).total for candidate in candidates]


def linear(candidates: Sequence[WorkerLoad], _work_s: float, _rules: Params) -> list[float]:
    """The sum of queue, latency and jitter, each as a share of the highest. A latency not known counts as usual."""
    usual_ms = fmean([c.latency_ms for c in candidates if c.latency_ms is not None] or [0.0])
    queues = _shares([c.in_flight + c.queue_depth for c in candidates])
    latencies = _shares([usual_ms if c.latency_ms is None else c.latency_ms for c in candidates])
    jitters = _shares([c.cpu_jitter for c in candidates])
    return [sum(signals) for signals in zip(queues, latencies, jitters, strict=True)]


def least_loaded(candidates: Sequence[WorkerLoad], _work_s: float, _rules: Params) -> list[float]:
    return [candidate.in_flight for candidate in candidates]


def round_robin(candidates: Sequence[WorkerLoad], _work_s: float, _rules: Params) -> list[float]:
    """Nobody scores: it is always the turn of the one used longest ago."""
    return [0.0 for _ in candidates]


def _shares(values: Sequence[float]) -> list[float]:
    highest = max(values, default=0.0)
    return [value / highest if highest > 0 else 0.0 for value in values]


@dataclass(frozen=True)
class Lowest:
    """The policy of a function that scores all candidates, in their order."""

    scores: Callable[[Sequence[WorkerLoad], float, Params], list[float]]
    rules: Params
    random: Random

    def choose(self, work_s: float, candidates: Sequence[WorkerLoad]) -> WorkerLoad | None:
        """See Policy."""
        scored = zip(self.scores(candidates, work_s, self.rules), candidates, strict=True)
        ranked = [(score, each.last_used, self.random.random(), each) for score, each in scored]
        return min(ranked, key=lambda rank: rank[:3])[-1] if ranked else None


@dataclass(frozen=True)
class Anybody:
    """The policy of chance."""

    random: Random

    def choose(self, work_s: float, candidates: Sequence[WorkerLoad]) -> WorkerLoad | None:  # noqa: ARG002
        """See Policy."""
        return self.random.choice(candidates) if candidates else None


POLICIES: dict[str, Callable[[Params, Random], Policy]] = {
    "weighted": partial(Lowest, weighted),
    "linear": partial(Lowest, linear),
    "least_loaded": partial(Lowest, least_loaded),
    "round_robin": partial(Lowest, round_robin),
    "random": lambda _, random: Anybody(random),
}
