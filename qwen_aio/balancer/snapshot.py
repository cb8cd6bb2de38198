"""What the balancer shows of itself: frozen rows for /status, the dashboard and scripts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

AdminState = Literal["ready", "drain", "maint"]  # set by an operator
HealthState = Literal["starting", "up", "demoted", "suspect", "down"]  # seen by the balancer
BreakerState = Literal["closed", "open", "half_open"]
ServiceState = Literal["ok", "degraded", "unavailable", "draining"]
RequestOutcome = Literal["ok", "cancelled", "refused", "failed"]  # refused: a 4xx; failed: the rest


@dataclass(frozen=True)
class Cost:
    """What the next request would cost on a worker, and why: `total` is the product of the rest."""

    queue_s: float  # work in flight and of a typical decision, at this worker's speed
    jitter_factor: float
    failure_factor: float
    demotion_factor: float
    total: float


@dataclass(frozen=True)
class WorkerRow:
    """One line of the table. Percentages are 0 to 100; None: unknown yet."""

    id: str
    url: str
    admin: AdminState
    health: HealthState
    why: str  # one English sentence: why it is in this state
    breaker: BreakerState
    in_flight: int  # counted by the balancer: requests bound to it
    running: int  # from its report: sequences being computed
    capacity: int
    queue_depth: int  # from its report: requests waiting inside it
    cpu_percent: float
    cpu_jitter: float
    latency_ms_last5: tuple[float, ...]
    latency_ms_mean5: float | None
    ttft_ms_mean5: float | None
    tokens_per_second: float
    rss_mb: float
    uptime_s: float | None
    status_age_s: float | None  # since its report last moved
    completed: int
    speed: float
    cost: Cost | None  # None: it gets no requests at the moment
    pid: int
    generation: int
    model: str
    model_sha: str
    precision: str
    tasks_sha: str


@dataclass(frozen=True)
class Snapshot:
    """The whole service at one moment."""

    time: float  # unix seconds
    state: ServiceState
    policy: str
    asked_for: int  # workers there should be
    ready: int  # workers that take requests
    waiting: int  # requests in the queue
    waiting_work_s: float
    in_flight: int
    requests: int  # since the balancer started
    failures: int
    version: str
    workers: tuple[WorkerRow, ...]


@dataclass(frozen=True, kw_only=True)
class RequestRow:
    """One engine request; a request with a decision and an answer has two rows of one `id`."""

    number: int = 0  # set by Stats, as are time, outcome and error
    time: float = 0.0  # unix seconds, when it ended
    id: str
    task: str
    worker: str  # of the last attempt; empty without one
    why: str  # why this worker, e.g. "cost 0.012: queue 0.010 s, jitter x1.2"
    attempts: int
    queue_ms: float
    total_ms: float
    tokens: int  # generated; 0 for a decision
    outcome: RequestOutcome = "ok"
    error: str = ""  # its code; empty without one


@dataclass(frozen=True)
class EventRow:
    """One change of a worker's state: who or what changed it, when, why."""

    number: int
    time: float
    worker: str
    actor: str  # "person", "report", "call", "clock", "balancer"
    change: str  # e.g. "up -> suspect", "ready -> maint"
    why: str


@dataclass(frozen=True)
class Sample:
    """One point of the charts: what happened since the point before it."""

    time: float
    requests_per_s: float
    p50_ms: float | None
    p95_ms: float | None
    waiting: int
    cpu_percent: dict[str, float]  # by worker
    in_flight: dict[str, int]  # by worker
