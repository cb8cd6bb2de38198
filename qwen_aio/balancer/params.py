"""The numbers that a maintainer may tune, in one place. Durations end in `_s` or `_ms`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Params:
    """Defaults; only `max_queue` and `slow_ms` are flags."""

    # the queue
    max_queue: int = 256  # requests that may wait
    max_queued_work_s: float = 120.0  # predicted work of all waiting requests
    ageing: float = 0.25  # seconds of predicted work that a second of waiting makes up for
    oldest_first_after_s: float = 30.0
    no_worker_grace_s: float = 30.0  # requests wait so long after a worker was ready

    # the cost of a worker
    jitter_weight: float = 0.5
    full_jitter: float = 50.0  # percent points at which the jitter counts fully
    jitter_age_s: float = 6.0
    failure_weight: float = 4.0
    failure_memory_s: float = 10.0
    demoted_factor: float = 4.0
    speed_results: int = 5  # results that a worker's speed is the mean of
    speed_rise: float = 0.2  # share of a rise that counts at once; a drop counts whole

    # the first guess of what tokens cost, until workers report: Qwen1.5-0.5B in fp32 on two cores
    prefill_tokens_per_s: float = 150.0
    decode_tokens_per_s: float = 30.0
    fixed_work_s: float = 0.01  # of any request: HTTP, scheduling, one step

    # demotion
    slow_ms: float = 1500.0
    slow_reports: int = 3
    good_reports: int = 2
    max_ejection_percent: int = 50  # of serving workers, that may be demoted or broken at once
    first_probe_s: float = 5.0
    longest_probe_s: float = 60.0

    # failures
    breaker_failures: int = 3  # in a row ...
    breaker_share: float = 0.5  # ... or this share
    breaker_samples: int = 5  # of at least so many attempts in failure_memory_s
    first_open_s: float = 1.0
    longest_open_s: float = 30.0
    max_other_workers: int = 2  # attempts after the first one
    max_deaths: int = 2  # workers that may die while the same request is on them
    retry_share: float = 0.2  # retries after error answers, as a share of requests ...
    retries_per_s: float = 1.0  # ... plus so many
    first_token_factor: float = 3.0  # factor * predicted + slack is a stall; twice that a death
    first_token_slack_s: float = 5.0
    gap_factor: float = 20.0
    least_gap_s: float = 5.0

    # health
    report_period_s: float = 2.0
    stale_after_s: float = 6.0  # a report whose seq has not moved for so long says nothing any more
    forget_after_s: float = 600.0  # an unnamed worker that is gone leaves the table


PARAMS = Params()
