"""One life of a worker, from the start of its process to its end: what it can do, what runs on it, how it has done.

A worker that is started again begins a new life with nothing counted; calls of the old one end on the old one. Knows
nothing of other workers: whether it is demoted is the pool's to say. Owned by the event loop.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from statistics import fmean

from qwen_aio.balancer.cost.estimate import FASTEST, WorkerSpeed
from qwen_aio.balancer.cost.policies import WorkerLoad, cost
from qwen_aio.balancer.cost.queue import QueuedRequest, Twin
from qwen_aio.balancer.cost.reference import UsualSpeed
from qwen_aio.balancer.params import Params
from qwen_aio.balancer.reasons import Reason
from qwen_aio.balancer.snapshot import AdminState, Cost, WorkerRow
from qwen_aio.balancer.workers.breaker import Breaker
from qwen_aio.balancer.workers.demotion import Demotion
from qwen_aio.balancer.workers.health import HealthStatus, HeartbeatReader
from qwen_aio.core import Capabilities, Timings, Usage, WorkerStatus

TYPICAL_TOKENS = 16  # of a decision that are not cached
# Five results do not tell workers apart that differ by less. Were such differences believed, whoever was once measured
# to be a little faster would get everything while nobody is busy.
SPEED_STEP = 1.25


class Worker:
    """What is in flight is a set of jobs and no counter, so it can neither leak nor become negative."""

    def __init__(
        self,
        worker_id: str,
        url: str,
        *,
        rules: Params,
        clock: Callable[[], float],
        reference: UsualSpeed,
        usual_speed: Callable[[], float],
    ) -> None:
        """`url` is empty until it is known; `usual_speed` is that of others, believed until there are results."""
        self.id = worker_id
        self.url = url
        self.pulse = HeartbeatReader(rules, clock)
        self.breaker = Breaker(rules, clock)
        self.demotion = Demotion(rules, clock)
        self.offer: Capabilities | None = None  # until it has said what it can do
        self.is_demoted = False  # the pool's decision
        self.named_at = clock()  # when somebody last said that there is such a worker
        self.last_used = 0  # the turn at which it last got a job; only the order counts
        self.last_failure = ""  # what the last call that failed met
        self._rules = rules
        self._clock = clock
        self._reference = reference
        self._usual_speed = usual_speed
        self._results = WorkerSpeed(rules, FASTEST)  # so that the first result, like all bad news, is believed whole
        self._used_at = clock()  # when it last got a job
        self._jobs: set[QueuedRequest] = set()
        self._gaps_s: deque[float] = deque(maxlen=rules.speed_results)

    def __repr__(self) -> str:
        return f"<Life {self.id} {self.finding.health}, {self.in_flight} in flight>"

    # ---- how it is --------------------------------------------------------------------------------------------------

    @property
    def finding(self) -> HealthStatus:
        """Its health at this moment."""
        found = self.pulse.finding
        if found.health != "up":
            return found
        if self.offer is None:
            return HealthStatus("starting", Reason("no_capabilities"))
        if not self.demotion.wants:
            return found
        slow_ms = self.demotion.slow_ms
        if self.is_demoted:
            return HealthStatus("demoted", Reason("slow", milliseconds=slow_ms))
        return HealthStatus("up", Reason("slow", Reason("not_demoted"), milliseconds=slow_ms))

    @property
    def is_well(self) -> bool:
        """Does its health allow new work?"""
        return self.finding.health in ("up", "demoted")

    def wrote(self, status: WorkerStatus) -> bool:
        """Is `status` of this process?"""
        mine = self.pulse.status
        return mine is not None and _identity(status) == _identity(mine)

    def hear(self, status: WorkerStatus, *, asked_at: float | None = None) -> bool:
        """A record of this process was read, or given by itself when asked at `asked_at`. Whether it is news."""
        if not self.pulse.hear(status, asked_at=asked_at):
            return False
        self.demotion.report(completed=status.completed, slow_ms=status.slow_ms)
        if not self._jobs:
            self.pulse.forgive()
        return True

    # ---- what runs on it --------------------------------------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        """Jobs bound to it."""
        return len(self._jobs)

    @property
    def work_s(self) -> float:
        """Reference seconds of those, as they were expected."""
        return sum(job.work_s for job in self._jobs)

    @property
    def has_room(self) -> bool:
        """Is there a place for any kind of call?"""
        return self.in_flight < self._capacity

    def suits(self, job: QueuedRequest) -> bool:
        """Could it do this at all: is it another one than those who tried, and of the model and task needed?"""
        if self.offer is None or self.id in job.tried or job.call.task not in self.offer.tasks:
            return False
        return job.needs in (None, self.twin(job.call.task))

    def twin(self, task: str) -> Twin:
        """What another worker must have to go on with an answer of this one."""
        assert self.offer is not None
        model_sha, precision = self._status.model_sha, self._status.precision
        return Twin(model_sha, precision, self.offer.tasks[task].hash, self.offer.context)

    def can_take(self, job: QueuedRequest) -> bool:
        """Could it do this now?"""
        return self.is_well and self.breaker.allows() and self._has_place(job) and self.suits(job)

    def take(self, job: QueuedRequest, turn: int) -> None:
        """`job` is bound to it, as the pool's `turn`-th one."""
        # Not `can_take`: whether it is well may have changed since it was asked, by the clock alone.
        assert self._has_place(job) and self.suits(job), f"{self} cannot take job {job.number}"
        self.breaker.begin()
        self._jobs.add(job)
        self.last_used = turn
        self._used_at = self._clock()

    def give_back(self, job: QueuedRequest) -> None:
        """`job` has left it."""
        self._jobs.remove(job)

    def patience_s(self, job: QueuedRequest) -> float:
        """Seconds without anything coming of `job`, the newest one bound, after which it stalls.

        A worker lets short decisions pass a long one for some time, which may take them as long.
        """
        rules, predicted_s = self._rules, self.work_s / self.speed
        passed_s = rules.oldest_first_after_s if job.is_long else 0.0
        return rules.first_token_factor * predicted_s + rules.first_token_slack_s + passed_s

    def learn(self, job: QueuedRequest, *, service_s: float, usage: Usage, timings: Timings) -> None:
        """`job` is done, and this is what it took."""
        if job.needs is not None:
            return  # what it tells is of the whole answer; this life made only the end of it
        self._reference.learn(usage, timings)
        self._results.record(work_s=self._reference.seconds_of(usage), service_s=service_s)
        if usage.completion_tokens > 0:
            self._gaps_s.append(timings.decode_ms / 1000 / usage.completion_tokens)

    @property
    def known_speed(self) -> float | None:
        """Reference seconds of work in a second of service; None until a job was done."""
        return self._results.value if self._results.is_known else None

    @property
    def speed(self) -> float:
        """The same, or what is usual."""
        return self.known_speed or self._usual_speed()

    @property
    def is_probe_due(self) -> bool:
        """Has it been idle for so long that something short should show whether what is believed of it still holds?"""
        if self.in_flight:
            return False
        if self.is_demoted:
            return self.demotion.probe_due()
        return self._clock() - self._used_at >= self._rules.longest_probe_s

    @property
    def usual_gap_s(self) -> float:
        """Seconds between two tokens, in its last five answers."""
        return fmean(self._gaps_s) if self._gaps_s else 1 / self._rules.decode_tokens_per_s

    # ---- how it is shown --------------------------------------------------------------------------------------------

    @property
    def candidate(self) -> WorkerLoad:
        """What a policy needs to know of it."""
        return WorkerLoad(
            id=self.id,
            in_flight=self.in_flight,
            work_s=self.work_s,
            speed=SPEED_STEP ** round(math.log(self.speed, SPEED_STEP)),
            cpu_jitter=self._status.cpu_jitter,
            jitter_age_s=self.pulse.status_age_s or 0.0,
            failure_rate=self.breaker.failure_rate,
            is_demoted=self.is_demoted,
            queue_depth=self._status.queue_depth,
            latency_ms=self._status.latency_ms_mean5,
            last_used=self.last_used,
        )

    def row(self, *, admin: AdminState, wall_time: float) -> WorkerRow:
        """One line of the table; `wall_time` in unix seconds."""
        found, status = self.finding, self._status
        return WorkerRow(
            id=self.id,
            url=self.url,
            admin=admin,
            health=found.health,
            why=found.why,
            breaker=self.breaker.state,
            in_flight=self.in_flight,
            uptime_s=max(wall_time - status.start_time, 0.0) if self.pulse.status else None,
            status_age_s=self.pulse.status_age_s,
            speed=self.speed,
            cost=self._typical_cost() if admin == "ready" and self.is_well and self.breaker.allows() else None,
            **{name: getattr(status, name) for name in _REPORTED},
        )

    @property
    def _status(self) -> WorkerStatus:
        """The newest record, or an empty one."""
        return self.pulse.status or WorkerStatus(self.id, self.url, 0, 0.0, 0, 0, "starting")

    @property
    def _capacity(self) -> int:
        return self._status.capacity

    def _has_place(self, job: QueuedRequest) -> bool:
        """Places are kept so that a short decision finds one at once, and any decision beside answers (BALANCING 2).

        Answers leave a quarter of them, long decisions half (they are computed one after the other), both together one.
        """
        if not self.has_room:
            return False
        num_answers = sum(other.kind == "generation" for other in self._jobs)
        num_long = sum(other.is_long for other in self._jobs)
        quarter = self._capacity // 4
        if job.kind == "generation":
            fits = num_answers < self._capacity - quarter
        elif job.is_long:
            fits = num_long < max(self._capacity // 2, 1)
        else:
            return True
        return fits and num_answers + num_long < self._capacity - min(quarter, 1)

    def _typical_cost(self) -> Cost:
        return cost(self.candidate, self._reference.seconds(TYPICAL_TOKENS, 0), self._rules)


# What a row takes from the record as it is.
_REPORTED = (
    *("running", "capacity", "queue_depth", "cpu_percent", "cpu_jitter", "latency_ms_last5", "latency_ms_mean5"),
    *("ttft_ms_mean5", "tokens_per_second", "rss_mb", "completed", "pid", "generation"),
    *("model", "model_sha", "precision", "tasks_sha"),
)


def _identity(status: WorkerStatus) -> tuple[int, float, int]:
    return status.pid, status.start_time, status.generation
