"""One process of a worker as the balancer sees it: health, capabilities, requests, results.

A restarted worker is a new `Worker` with nothing counted; requests of the old process end on the
old one. Knows nothing of other workers: the registry decides whether it is demoted.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, fields
from statistics import fmean

from qwen_aio.balancer.cost.cost_model import CostModel
from qwen_aio.balancer.cost.policies import WorkerLoad, cost
from qwen_aio.balancer.cost.queue import Compatibility, QueuedRequest
from qwen_aio.balancer.cost.worker_speed import FASTEST, WorkerSpeed
from qwen_aio.balancer.params import Params
from qwen_aio.balancer.reasons import NO_CAPABILITIES, NOT_DEMOTED, SLOW, Reason
from qwen_aio.balancer.snapshot import AdminState, WorkerRow
from qwen_aio.balancer.workers.breaker import Breaker
from qwen_aio.balancer.workers.demotion import Demotion
from qwen_aio.balancer.workers.health import HealthStatus, HeartbeatReader
from qwen_aio.core import Capabilities
from qwen_aio.result import Timings, Usage
from qwen_aio.status.record import WorkerStatus

# What a row takes from the report: every metric that both declare.
REPORTED = {metric.name for metric in fields(WorkerStatus)} & {cell.name for cell in fields(WorkerRow)} - {"id", "url"}
TYPICAL_TOKENS = 16  # of a decision, uncached
# Five results cannot tell workers apart that differ by less. If such differences counted, one lucky
# measurement would send everything to one worker while all are idle.
SPEED_STEP = 1.25


@dataclass(eq=False)
class Worker:
    """Requests in flight are a set, not a counter: their number cannot leak or become negative."""

    id: str
    url: str  # empty until it is known
    params: Params
    clock: Callable[[], float]
    costs: CostModel
    usual_speed: Callable[[], float]  # counts until there are results

    def __post_init__(self) -> None:
        self.heartbeat = HeartbeatReader(self.params, self.clock)
        self.breaker = Breaker(self.params, self.clock)
        self.demotion = Demotion(self.params, self.clock)
        self.capabilities: Capabilities | None = None  # until the worker has reported them
        self.is_demoted = False  # set by the registry
        self.named_at = self.clock()  # when a report or a setting last named this worker
        self.last_used = 0  # the turn at which it last got a request; only the order counts
        self.last_failure = ""  # message of the last failed attempt
        self._speed = WorkerSpeed(self.params, FASTEST)  # the first result is a drop
        self._used_at = self.clock()  # when it last got a request
        self._requests: set[QueuedRequest] = set()
        self._gaps_s: deque[float] = deque(maxlen=self.params.speed_results)

    def __repr__(self) -> str:
        return f"<Worker {self.id} {self.health.state}, {self.in_flight} in flight>"

    # ---- health ----------------------------------------------------------------------------------

    @property
    def health(self) -> HealthStatus:
        health = self.heartbeat.health
        if health.state != "up":
            return health
        if self.capabilities is None:
            return HealthStatus("starting", Reason(NO_CAPABILITIES))
        if not self.demotion.is_wanted:
            return health
        slow_ms = self.demotion.slow_ms
        if self.is_demoted:
            return HealthStatus("demoted", Reason(SLOW, milliseconds=slow_ms))
        return HealthStatus("up", Reason(SLOW, Reason(NOT_DEMOTED), milliseconds=slow_ms))

    @property
    def is_well(self) -> bool:
        """Does its health allow new requests?"""
        return self.health.state in ("up", "demoted")

    def wrote(self, status: WorkerStatus) -> bool:
        """Is `status` of this process?"""
        own = self.heartbeat.status
        return own is not None and status.process == own.process

    def hear(self, status: WorkerStatus, *, asked_at: float | None = None) -> bool:
        """Take in a report from the file, or given at `asked_at`. Returns whether it is new."""
        if not self.heartbeat.hear(status, asked_at=asked_at):
            return False
        self.demotion.report(completed=status.completed, slow_ms=status.slow_ms)
        if not self._requests:
            self.heartbeat.forgive()
        return True

    # ---- requests --------------------------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        return len(self._requests)

    @property
    def work_s(self) -> float:
        """Predicted reference seconds of those."""
        return sum(queued.work_s for queued in self._requests)

    @property
    def has_room(self) -> bool:
        """Is there a slot for a request of any kind?"""
        return self.in_flight < self._status.capacity

    def suits(self, queued: QueuedRequest) -> bool:
        """Could it do this request at all: not tried yet, and of the model and task needed?"""
        if self.capabilities is None or self.id in queued.tried or queued.request.task not in self.capabilities.tasks:
            return False
        return queued.needs in (None, self.compatibility(queued.request.task))

    def compatibility(self, task: str) -> Compatibility:
        """What another worker needs to resume an answer of this one."""
        assert self.capabilities is not None
        task_hash, context = self.capabilities.tasks[task].hash, self.capabilities.context
        status = self._status
        return Compatibility(status.model_sha, status.precision, status.kernel, task_hash, context)

    def can_take(self, queued: QueuedRequest) -> bool:
        return self.is_well and self.breaker.allows() and self._has_slot(queued) and self.suits(queued)

    def bind(self, queued: QueuedRequest, turn: int) -> None:
        """Give it `queued`, as the `turn`-th request of all workers."""
        # Not `can_take`: its health may have changed since, by the clock alone.
        assert self._has_slot(queued) and self.suits(queued), f"{self} cannot take request {queued.number}"
        self.breaker.begin()
        self._requests.add(queued)
        self.last_used = turn
        self._used_at = self.clock()

    def release(self, queued: QueuedRequest) -> None:
        self._requests.remove(queued)

    def patience_s(self, queued: QueuedRequest) -> float:
        """Seconds until `queued`, the newest request, counts as stalled without a first event.

        A worker lets short decisions pass a long one for some time, so a long one may take that
        much longer.
        """
        params, predicted_s = self.params, self.work_s / self.speed
        passed_s = params.oldest_first_after_s if queued.is_long else 0.0
        return params.first_token_factor * predicted_s + params.first_token_slack_s + passed_s

    def learn(self, queued: QueuedRequest, *, service_s: float, usage: Usage, timings: Timings) -> None:
        """`queued` is done and took this."""
        if queued.request.explain:
            return  # the numbers are of the decision alone, and it was known before
        self.costs.learn_tokens(queued.request, queued.kind, usage)
        if queued.needs is not None:
            return  # the numbers are of the whole answer; this worker made only the end of it
        self.costs.learn_seconds(usage, timings)
        self._speed.record(work_s=self.costs.seconds_of(usage), service_s=service_s)
        if usage.completion_tokens > 0:
            self._gaps_s.append(timings.decode_ms / 1000 / usage.completion_tokens)

    @property
    def known_speed(self) -> float | None:
        """Reference seconds of work in a second of service; None until a request was done."""
        return self._speed.value if self._speed.is_known else None

    @property
    def speed(self) -> float:
        """The same, or the usual speed until it is known."""
        return self.known_speed or self.usual_speed()

    @property
    def is_probe_due(self) -> bool:
        """Has it been idle for so long that a short request should measure it again?"""
        if self.in_flight:
            return False
        if self.is_demoted:
            return self.demotion.probe_due()
        return self.clock() - self._used_at >= self.params.longest_probe_s

    @property
    def usual_gap_s(self) -> float:
        """Seconds between two tokens, in its last five answers."""
        return fmean(self._gaps_s) if self._gaps_s else 1 / self.params.decode_tokens_per_s

    # ---- what others see of it -------------------------------------------------------------------

    @property
    def load(self) -> WorkerLoad:
        return WorkerLoad(
            id=self.id,
            in_flight=self.in_flight,
            work_s=self.work_s,
            speed=SPEED_STEP ** round(math.log(self.speed, SPEED_STEP)),
            cpu_jitter=self._status.cpu_jitter,
            jitter_age_s=self.heartbeat.status_age_s or 0.0,
            failure_rate=self.breaker.failure_rate,
            is_demoted=self.is_demoted,
            queue_depth=self._status.queue_depth,
            latency_ms=self._status.latency_ms_mean5,
            last_used=self.last_used,
        )

    def row(self, *, admin: AdminState, wall_time: float) -> WorkerRow:
        """One line of the table; `wall_time` in unix seconds."""
        health, status = self.health, self._status
        takes_requests = admin == "ready" and self.is_well and self.breaker.allows()
        typical_s = self.costs.seconds(TYPICAL_TOKENS, 0)
        return WorkerRow(
            id=self.id,
            url=self.url,
            admin=admin,
            health=health.state,
            why=health.why,
            breaker=self.breaker.state,
            in_flight=self.in_flight,
            uptime_s=max(wall_time - status.start_time, 0.0) if self.heartbeat.status else None,
            status_age_s=self.heartbeat.status_age_s,
            speed=self.speed,
            cost=cost(self.load, typical_s, self.params) if takes_requests else None,
            **{name: getattr(status, name) for name in REPORTED},
        )

    @property
    def _status(self) -> WorkerStatus:
        """The newest report, or an empty one."""
        return self.heartbeat.status or WorkerStatus(self.id, self.url, 0, 0.0, 0, 0, "starting")

    def _has_slot(self, queued: QueuedRequest) -> bool:
        """Slots are reserved: a short decision finds one at once, and any decision beside answers.

        Answers leave a quarter free, long decisions half (they are computed one after the other),
        both together one.
        """
        if not self.has_room:
            return False
        num_answers = sum(other.kind == "generation" for other in self._requests)
        num_long = sum(other.is_long for other in self._requests)
        capacity = self._status.capacity
        if queued.kind == "generation":
            fits = num_answers < capacity - capacity // 4
        elif queued.is_long:
            fits = num_long < max(capacity // 2, 1)
        else:
            return True
        return fits and num_answers + num_long < capacity - min(capacity // 4, 1)
