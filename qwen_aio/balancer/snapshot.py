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

    queue_s: float
    """Work in flight and of a typical decision, at this worker's speed."""
    jitter_factor: float
    """1 for a steady CPU."""
    failure_factor: float
    """1 without recent failures."""
    demotion_factor: float
    """1 unless the worker is slower than its peers or than `slow_ms`."""
    total: float
    """The product: the least one is chosen."""


@dataclass(frozen=True)
class WorkerRow:
    """One line of the table. Percentages are 0 to 100; None: unknown yet."""

    id: str
    """Its id."""
    url: str
    """Where the balancer reaches it."""
    admin: AdminState
    """Set by an operator."""
    health: HealthState
    """Seen by the balancer."""
    why: str
    """One English sentence: why it is in this state."""
    breaker: BreakerState
    """Of its circuit breaker."""
    in_flight: int
    """Counted by the balancer: requests bound to it."""
    running: int
    """From its report: sequences being computed."""
    capacity: int
    """From its report: sequences it computes at once."""
    queue_depth: int
    """From its report: requests waiting inside it."""
    cpu_percent: float
    """Of its threads."""
    cpu_jitter: float
    """Standard deviation of its last CPU readings under load, percent points."""
    latency_ms_last5: tuple[float, ...]
    """Of its last five requests, without the time in the queue."""
    latency_ms_mean5: float | None
    """Their mean."""
    ttft_ms_mean5: float | None
    """Until the first token of its last five answers, mean."""
    tokens_per_second: float
    """Of all its answers, since its last report."""
    rss_mb: float
    """Resident memory."""
    egress_refused: int | None
    """Its attempts to reach another machine; null with --no-offline."""
    uptime_s: float | None
    """Since its process started."""
    status_age_s: float | None
    """Since its report last moved."""
    completed: int
    """Requests it has finished."""
    speed: float
    """Seconds of work, as the cost model counts them, that it does in a second."""
    cost: Cost | None
    """None: it gets no requests at the moment."""
    pid: int
    """Its process."""
    generation: int
    """One more than in the id's last process."""
    model: str
    """The name of its model."""
    model_sha: str
    """The hash of its model."""
    precision: str
    """Of its weights."""
    kernel: str
    """What computes its forward pass."""
    tasks_sha: str
    """The hash of its tasks."""


@dataclass(frozen=True)
class Snapshot:
    """The whole service at one moment."""

    time: float
    """Unix seconds."""
    state: ServiceState
    """Ok with all workers, degraded with fewer."""
    policy: str
    """How a worker is chosen."""
    asked_for: int
    """Workers there should be."""
    ready: int
    """Workers that take requests."""
    waiting: int
    """Requests in the queue."""
    waiting_work_s: float
    """Seconds of work in the queue."""
    in_flight: int
    """Requests bound to workers."""
    requests: int
    """Since the balancer started."""
    failures: int
    """Those that failed through no fault of the client."""
    egress_refused: int | None
    """Attempts of the balancer to reach other machines than its workers; null with --no-offline."""
    version: str
    """The balancer's."""
    workers: tuple[WorkerRow, ...]
    """One row for each."""


@dataclass(frozen=True)
class HealthRecord:
    """The reply of /health."""

    state: ServiceState
    """Ok with all workers, degraded with fewer."""
    ready: int
    """Workers that take requests."""
    asked_for: int
    """Workers there should be."""
    waiting: int
    """Requests in the queue."""
    policy: str
    """How a worker is chosen."""
    egress_refused: int | None
    """Attempts of the balancer to reach other machines than its workers; null with --no-offline."""
    version: str
    """The balancer's."""
    workers: dict[str, str]
    """Id -> state: an operator's, or else as the balancer sees it."""


@dataclass(frozen=True, kw_only=True)
class RequestRow:
    """One engine request; a request with a decision and an answer has two rows of one `id`."""

    number: int = 0
    """Set by Stats, as are time, outcome and error."""
    time: float = 0.0
    """Unix seconds, when it ended."""
    id: str
    """The request id."""
    task: str
    """Its task."""
    worker: str
    """Of the last attempt; empty without one."""
    why: str
    """Why this worker, e.g. "cost 0.012: queue 0.010 s, jitter x1.2"."""
    attempts: int
    """How many workers were tried."""
    queue_ms: float
    """Waiting for a worker."""
    total_ms: float
    """From arrival to the end."""
    tokens: int
    """Generated; 0 for a decision."""
    outcome: RequestOutcome = "ok"
    """Refused: a 4xx; failed: through no fault of the client."""
    error: str = ""
    """Its code; empty without one."""


@dataclass(frozen=True)
class EventRow:
    """One change of a worker's state: who or what changed it, when, why."""

    number: int
    """One more with every event."""
    time: float
    """Seconds since 1970."""
    worker: str
    """Its id."""
    actor: str
    """"person", "report", "call", "clock", "balancer"."""
    change: str
    """E.g. "up -> suspect", "ready -> maint"."""
    why: str
    """One English sentence."""


@dataclass(frozen=True)
class Sample:
    """One point of the charts: what happened since the point before it."""

    time: float
    """Seconds since 1970."""
    requests_per_s: float
    """Engine requests that ended."""
    p50_ms: float | None
    """Median of their durations; null without one."""
    p95_ms: float | None
    """95th percentile."""
    waiting: int
    """Requests in the queue."""
    cpu_percent: dict[str, float]
    """By worker."""
    in_flight: dict[str, int]
    """By worker."""
