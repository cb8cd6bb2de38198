"""The workers there are: their reports, their administrative states, who is ready, who is demoted.

Whether a worker may take requests is judged at the moment of the question, never from an answer
that could be out of date. Knows no HTTP and no file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean

from qwen_aio.balancer.cost.cost_model import CostModel
from qwen_aio.balancer.cost.queue import QueuedRequest
from qwen_aio.balancer.params import Params
from qwen_aio.balancer.reasons import REPLACED, RESTORED, SET_DRAIN, SET_MAINT, SET_READY, Reason
from qwen_aio.balancer.snapshot import AdminState, ServiceState, WorkerRow
from qwen_aio.balancer.workers.claims import Claims
from qwen_aio.balancer.workers.event_log import Actor, EventLog, OnEvent
from qwen_aio.balancer.workers.worker import Worker
from qwen_aio.core import Capabilities, ContextLimits
from qwen_aio.errors import LastWorker, UnknownWorker
from qwen_aio.status.record import WorkerStatus

_MEANING: dict[AdminState, str] = {
    "ready": Reason(SET_READY),
    "drain": Reason(SET_DRAIN),
    "maint": Reason(SET_MAINT),
}


@dataclass(eq=False)
class Registry:
    """One `Worker` for each id, and its administrative state."""

    params: Params
    clock: Callable[[], float]
    wall_clock: Callable[[], float]
    on_event: OnEvent
    asked_for: Collection[str]  # ids that stay in the table for ever

    def __post_init__(self) -> None:
        self.costs = CostModel(self.params)
        self._event_log = EventLog(self.on_event)
        self._workers: dict[str, Worker] = {}  # by id
        self._new_worker = partial(
            Worker, params=self.params, clock=self.clock, costs=self.costs, usual_speed=self._usual_speed
        )
        self._claims = Claims(self._workers, self._new_worker, self.params, self.clock)
        self._admin: dict[str, AdminState] = {}  # by id; an absent id is "ready"
        self._last_ready = self.clock()  # at the start no worker can be ready yet
        self._last_capabilities: Capabilities | None = None
        for worker_id in self.asked_for:
            self.expect(worker_id)

    def __repr__(self) -> str:
        workers = ", ".join(f"{worker.id} {worker.health.state} {worker.in_flight}" for worker in self._sorted())
        return f"<Registry [{workers}]>"

    # ---- reports ---------------------------------------------------------------------------------

    def expect(self, worker_id: str, url: str = "") -> None:
        """There should be such a worker, at `url` if that is known."""
        worker = self._workers.get(worker_id)
        if worker is None:
            worker = self._workers[worker_id] = self._new_worker(worker_id, url)
            self._event_log.record(worker, "balancer")
        worker.named_at = self.clock()
        worker.url = url or worker.url

    def report(self, status: WorkerStatus) -> None:
        """A report was read from the file; it may be old or known already."""
        worker = self._claims.writer_of(status)
        worker.named_at = self.clock()
        if worker.hear(status):
            self.settle(worker, "report")
        self._settle_claim(status.id)

    def describe(self, worker_id: str, capabilities: Capabilities) -> None:
        worker = self._workers[worker_id]
        worker.capabilities = capabilities
        self.settle(worker, "report")

    def answered(self, status: WorkerStatus, *, asked_at: float) -> None:
        """The worker at `status.url` was asked at `asked_at` and gave this report."""
        worker = self._claims.writer_of(status)
        holder = self._workers[status.id]
        if worker is not holder and status.url == holder.url and asked_at > holder.heartbeat.news_at:
            holder.heartbeat.refuse(Reason(REPLACED))
        worker.hear(status, asked_at=asked_at)
        worker.heartbeat.answer()
        self.settle(worker, "report")
        self._settle_claim(status.id)

    def refused(self, worker_id: str, why: str, *, url: str = "") -> None:
        """The worker is gone: nothing listens at `url`, by default its address."""
        url = url or self.url(worker_id)
        for worker in (*self._workers.values(), *self._claims):
            if (worker.id, worker.url) == (worker_id, url):
                worker.heartbeat.refuse(why)
                self.settle(worker, "call")
        self._settle_claim(worker_id)

    def tick(self) -> None:
        """Draw the conclusions that follow from time alone."""
        for worker in list(self._workers.values()):
            self.settle(worker, "clock")
            if self._is_over(worker):
                del self._workers[worker.id]
                self._event_log.forget(worker)
        for claimant in self._claims:
            self._settle_claim(claimant.id)

    # ---- questions of the health monitor ---------------------------------------------------------

    def to_ask(self) -> set[tuple[str, str]]:
        """Id and address of the workers to ask at /health, since their reports say too little."""
        soon_old_s = 2 * self.params.report_period_s
        doubtful = [
            worker
            for worker in self._workers.values()
            if not worker.is_well or (worker.heartbeat.status_age_s or 0.0) >= soon_old_s or worker.id in self._claims
        ]
        return {(worker.id, worker.url) for worker in (*doubtful, *self._claims) if worker.url}

    def lacks_capabilities(self, worker_id: str) -> bool:
        """Is the worker there, but its capabilities unknown?"""
        worker = self._workers.get(worker_id)
        return worker is not None and worker.capabilities is None and worker.health.state != "down"

    def url(self, worker_id: str) -> str:
        """The worker's address; empty if it is unknown."""
        return self._workers[worker_id].url if worker_id in self._workers else ""

    def urls(self) -> set[str]:
        return {worker.url for worker in (*self._workers.values(), *self._claims) if worker.url}

    # ---- administrative states -------------------------------------------------------------------

    def set_admin(self, worker_id: str, state: AdminState, *, force: bool) -> None:
        """Set by an operator alone. Raises UnknownWorker and, unless `force`, LastWorker."""
        worker = self._workers.get(worker_id)
        if worker is None:
            raise UnknownWorker(f"no worker {worker_id!r}; known: {', '.join(sorted(self._workers)) or 'none'}")
        if state != "ready" and not force and self.ready() == [worker]:
            raise LastWorker(f'{worker_id} is the only ready worker; send "force": true if that is meant')
        self._set_admin(worker_id, state, actor="person", why=_MEANING[state])

    def admin_states(self) -> dict[str, AdminState]:
        """Worker id -> drain or maint."""
        return dict(self._admin)

    def restore_admin(self, states: Mapping[str, AdminState]) -> None:
        """Make `states` the result of `admin_states`."""
        for worker_id in self._admin.keys() | states.keys():
            self._set_admin(worker_id, states.get(worker_id, "ready"), actor="balancer", why=Reason(RESTORED))

    # ---- the whole service -----------------------------------------------------------------------

    @property
    def num_asked_for(self) -> int:
        """Workers there should be: those asked for, or else all that are known."""
        return len(self._workers)

    @property
    def num_ready(self) -> int:
        return len(self.ready())

    def state(self) -> ServiceState:
        """ok with all workers, degraded with fewer, unavailable with none."""
        if self.num_ready == 0:
            return "unavailable"
        return "ok" if self.num_ready >= self.num_asked_for else "degraded"

    def absence(self) -> str:
        """Why no worker is ready, in a sentence."""
        if not self._workers:
            return "no worker has been heard of; start one with: python app.py --mode worker"
        reasons = [
            f"{worker.id}: {_MEANING[self._admin[worker.id]] if worker.id in self._admin else worker.health.why}"
            for worker in self._sorted()
        ]
        return f"no worker is ready ({'; '.join(reasons)})"

    def was_ready_within(self, seconds: float) -> bool:
        return bool(self.ready()) or self.clock() - self._last_ready <= seconds

    def capabilities(self) -> Capabilities | None:
        """Of all ready workers together, else the last known ones; None until any are known."""
        known = [worker.capabilities for worker in self.ready() if worker.capabilities is not None]
        if known:
            self._last_capabilities = _merged(known)
        return self._last_capabilities

    def rows(self) -> tuple[WorkerRow, ...]:
        wall_time = self.wall_clock()
        return tuple(worker.row(admin=self._admin_of(worker.id), wall_time=wall_time) for worker in self._sorted())

    # ---- questions and news of placement ---------------------------------------------------------

    def ready(self) -> list[Worker]:
        """Workers that take requests."""
        return [worker for worker in self._workers.values() if self._admin_of(worker.id) == "ready" and worker.is_well]

    def urls_with(self, task: str) -> list[str]:
        """Addresses of the ready workers that have `task`."""
        return [worker.url for worker in self.ready() if worker.capabilities and task in worker.capabilities.tasks]

    def has_another(self, queued: QueuedRequest) -> bool:
        """Is a worker ready that could do `queued`, now or later?"""
        return any(worker.suits(queued) for worker in self.ready())

    def settle(self, worker: Worker, actor: Actor) -> None:
        """Something has changed for `worker`: decide who is demoted, and record the changes."""
        if self._workers.get(worker.id) is not worker:
            return  # a request of a former process has ended
        demoted = self._demoted()
        changed = [other for other in self._workers.values() if other.is_demoted != (other in demoted)]
        for other in changed:
            other.is_demoted = not other.is_demoted
        self._event_log.record(worker, actor)
        for other in changed:
            if other is not worker:
                self._event_log.record(other, "balancer")
        if self.ready():
            self._last_ready = self.clock()

    def may_open(self, worker: Worker) -> bool:
        """May the worker's breaker open, with the other breakers as they are?"""
        serving = self._serving()
        num_open = sum(other.breaker.state != "closed" for other in serving if other is not worker)
        return num_open + 1 <= self._max_ejected(serving)

    # ---- internals -------------------------------------------------------------------------------

    def _demoted(self) -> list[Worker]:
        """The slowest of the workers whose reports call for demotion."""
        serving = self._serving()
        slow = sorted((w for w in serving if w.demotion.is_wanted), key=lambda worker: -worker.demotion.slow_ms)
        return slow[: self._max_ejected(serving)]

    def _max_ejected(self, serving: Sequence[Worker]) -> int:
        """When most workers look bad the load is to blame, and the rest could not bear it alone."""
        return len(serving) * self.params.max_ejection_percent // 100

    def _serving(self) -> list[Worker]:
        """Workers that do requests, well or not."""
        return [
            worker
            for worker in self._workers.values()
            if self._admin_of(worker.id) == "ready" and worker.health.state in ("up", "demoted", "suspect")
        ]

    def _usual_speed(self) -> float:
        speeds = [worker.known_speed for worker in self._workers.values() if worker.known_speed is not None]
        return fmean(speeds or [1.0])

    def _settle_claim(self, worker_id: str) -> None:
        if self._claims.settle(worker_id):
            self.settle(self._workers[worker_id], "report")

    def _is_over(self, worker: Worker) -> bool:
        """Is the worker gone for good, and no longer named by a report or a setting?"""
        is_named = worker.id in self.asked_for or self.clock() - worker.named_at < self.params.stale_after_s
        is_gone = worker.health.state == "down" and worker.heartbeat.silent_s >= self.params.forget_after_s
        return is_gone and not is_named and worker.in_flight == 0

    def _admin_of(self, worker_id: str) -> AdminState:
        return self._admin.get(worker_id, "ready")

    def _set_admin(self, worker_id: str, state: AdminState, *, actor: Actor, why: str) -> None:
        before = self._admin_of(worker_id)
        if state == before:
            return
        self._admin[worker_id] = state
        if state == "ready":
            del self._admin[worker_id]
        self.on_event(worker_id, actor, f"{before} -> {state}", why)
        if worker_id in self._workers:
            self.settle(self._workers[worker_id], "balancer")

    def _sorted(self) -> list[Worker]:
        """qwen-2 before qwen-10."""
        return sorted(self._workers.values(), key=lambda worker: [*map(_number_or_text, re.split(r"(\d+)", worker.id))])


def _merged(known: Sequence[Capabilities]) -> Capabilities:
    """All tasks; limits that every worker can keep."""
    tasks = {name: task for capabilities in reversed(known) for name, task in capabilities.tasks.items()}
    contexts = [capabilities.context for capabilities in known]
    context = ContextLimits(min(c.tokens for c in contexts), min(c.answer_tokens for c in contexts))
    return Capabilities(tasks, context, known[0].model, "balancer")


def _number_or_text(part: str) -> tuple[int, str]:
    return (int(part), "") if part.isdecimal() else (0, part)
