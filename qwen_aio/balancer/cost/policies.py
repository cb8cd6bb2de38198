"""Which worker gets the next request: the candidate with the lowest score.

Among equal scores the worker that was used longest ago wins, then chance: by list order, the first
entry would get everything while all are idle. Policies see only workers that can take the request
now, and change nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from statistics import fmean
from typing import NamedTuple

from qwen_aio.balancer.params import Params
from qwen_aio.balancer.reasons import Reason
from qwen_aio.balancer.snapshot import Cost
from qwen_aio.language import Both

# Why a worker was chosen.
COST = Both("cost {total:.3f}: queue {queue_s:.3f} s", "代价 {total:.3f}：队列 {queue_s:.3f} 秒")
JITTER = Both(", jitter x{factor:.2f}", "，抖动 ×{factor:.2f}")
FAILURES = Both(", failures x{factor:.2f}", "，失败 ×{factor:.2f}")
DEMOTION = Both(", demotion x{factor:.2f}", "，降级 ×{factor:.2f}")
LINEAR = Both(
    "linear {total:.3f}: queue {queue:.2f}, latency {latency:.2f}, jitter {jitter:.2f}",
    "线性得分 {total:.3f}：队列 {queue:.2f}，延迟 {latency:.2f}，抖动 {jitter:.2f}",
)
LEAST_LOADED = Both("least loaded: {in_flight} in flight", "负载最少：{in_flight} 个请求处理中")
ROUND_ROBIN = Both("round robin", "轮询")
RANDOM = Both("random", "随机")


@dataclass(frozen=True)
class WorkerLoad:
    """What a policy knows of a candidate. Work is in reference seconds (cost_model.py)."""

    id: str
    in_flight: int  # requests that the balancer has bound to it
    work_s: float  # of those
    speed: float  # work it does in a second; above 0
    cpu_jitter: float  # percent points
    jitter_age_s: float
    failure_rate: float  # 0..1
    is_demoted: bool
    queue_depth: int  # from its last report: requests waiting inside it
    latency_ms: float | None  # from its last report: mean of the last five
    last_used: float  # the turn at which it last got a request; only the order counts


class Choice(NamedTuple):
    """A candidate, and what states the terms of the policy that speak for it."""

    load: WorkerLoad
    why: Callable[[], str]  # called for the chosen one alone: words cost more than the choice
    score: float = 0.0  # lower is better


def cost(load: WorkerLoad, work_s: float, params: Params) -> Cost:
    """Seconds until a request of `work_s` would be done, times the factors against the worker."""
    queue_s = (load.work_s + work_s) / load.speed
    jitter = min(load.cpu_jitter / params.full_jitter, 1.0) * math.exp(-load.jitter_age_s / params.jitter_age_s)
    jitter_factor = 1 + params.jitter_weight * jitter
    failure_factor = 1 + params.failure_weight * load.failure_rate
    demotion_factor = params.demoted_factor if load.is_demoted else 1.0
    total = queue_s * jitter_factor * failure_factor * demotion_factor
    return Cost(queue_s, jitter_factor, failure_factor, demotion_factor, total)


def weighted(candidates: Sequence[WorkerLoad], work_s: float, params: Params) -> list[Choice]:
    costs = [cost(load, work_s, params) for load in candidates]
    return [Choice(load, partial(_describe, terms), terms.total) for load, terms in zip(candidates, costs, strict=True)]


def linear(candidates: Sequence[WorkerLoad], _work_s: float, _params: Params) -> list[Choice]:
    """Queue, latency (if unknown, the mean) and jitter, each as a share of the highest, summed."""
    mean_ms = fmean([load.latency_ms for load in candidates if load.latency_ms is not None] or [0.0])
    queues = _shares([load.in_flight + load.queue_depth for load in candidates])
    latencies = _shares([mean_ms if load.latency_ms is None else load.latency_ms for load in candidates])
    jitters = _shares([load.cpu_jitter for load in candidates])
    return [
        Choice(load, partial(Reason, LINEAR, total=total, queue=queue, latency=latency, jitter=jitter), total)
        for load, queue, latency, jitter in zip(candidates, queues, latencies, jitters, strict=True)
        for total in [queue + latency + jitter]
    ]


def least_loaded(candidates: Sequence[WorkerLoad], _work_s: float, _params: Params) -> list[Choice]:
    return [
        Choice(load, partial(Reason, LEAST_LOADED, in_flight=load.in_flight), load.in_flight) for load in candidates
    ]


def round_robin(candidates: Sequence[WorkerLoad], _work_s: float, _params: Params) -> list[Choice]:
    """All scores are equal, so the worker that was used longest ago is next."""
    return [Choice(load, partial(Reason, ROUND_ROBIN)) for load in candidates]


def by_chance(candidates: Sequence[WorkerLoad], _work_s: float, _params: Params, *, random: Random) -> list[Choice]:
    return [Choice(load, partial(Reason, RANDOM), random.random()) for load in candidates]


@dataclass(frozen=True)
class Policy:
    """Chooses by a function that scores all candidates, in their order."""

    scores: Callable[[Sequence[WorkerLoad], float, Params], list[Choice]]
    params: Params
    random: Random

    def choose(self, work_s: float, candidates: Sequence[WorkerLoad]) -> Choice | None:
        """The worker for a request of `work_s`; None without candidates."""
        choices = self.scores(candidates, work_s, self.params)
        return min(choices, key=lambda each: (each.score, each.load.last_used, self.random.random()), default=None)


POLICIES: dict[str, Callable[[Params, Random], Policy]] = {
    "weighted": partial(Policy, weighted),
    "linear": partial(Policy, linear),
    "least_loaded": partial(Policy, least_loaded),
    "round_robin": partial(Policy, round_robin),
    "random": lambda params, random: Policy(partial(by_chance, random=random), params, random),
}


def _describe(terms: Cost) -> Reason:
    """The cost and its terms for the request log; factors that change nothing are left out."""
    factors = ((JITTER, terms.jitter_factor), (FAILURES, terms.failure_factor), (DEMOTION, terms.demotion_factor))
    shown = [Reason(words, factor=factor) for words, factor in factors if factor >= 1.005]
    return Reason(COST, *shown, total=terms.total, queue_s=terms.queue_s)


def _shares(values: Sequence[float]) -> list[float]:
    highest = max(values, default=0.0)
    return [value / highest if highest > 0 else 0.0 for value in values]
