"""Which workers there are and how they are: what was heard of them, what people want of them, what follows for whom.

Whether a worker may take work is judged at the moment it is asked, never read off an answer that could be out of date.
Knows no HTTP and no file. Owned by the event loop: no method awaits, so each one is atomic and there is no lock.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from statistics import fmean

from qwen_aio.balancer.cost.reference import UsualSpeed
from qwen_aio.balancer.event_log import Actor, EventLog, OnEvent
from qwen_aio.balancer.params import Params
from qwen_aio.balancer.reasons import Reason
from qwen_aio.balancer.snapshot import AdminState, ServiceState, WorkerRow
from qwen_aio.balancer.workers import ejection as half
from qwen_aio.balancer.workers.claims import Claims
from qwen_aio.balancer.workers.worker import Worker
from qwen_aio.core import Capabilities, WorkerStatus
from qwen_aio.errors import LastWorker, UnknownWorker

_MEANING: dict[AdminState, str] = {
    "ready": Reason("set_ready"),
    "drain": Reason("set_drain"),
    "maint": Reason("set_maint"),
}


class Registry:
    """The life of every worker, one for each id, and people's word about it."""

    def __init__(
        self,
        rules: Params,
        *,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        on_event: OnEvent,
        asked_for: Collection[str],
    ) -> None:
        """`asked_for`: ids that stay in the table, whatever becomes of them."""
        self.reference = UsualSpeed(rules)
        self._rules = rules
        self._clock = clock
        self._wall_clock = wall_clock
        self._on_event = on_event
        self._chronicle = EventLog(on_event)
        self._lives: dict[str, Worker] = {}  # by worker id
        self._claims = Claims(self._lives, new_life=self._new_life, rules=rules, clock=clock)
        self._admin: dict[str, AdminState] = {}  # by worker id, known or not; who is not in it is "ready"
        self._asked_for = frozenset(asked_for)
        self._last_up = clock()  # when somebody was last ready; at the start nobody can have come yet
        for worker_id in asked_for:
            self.expect(worker_id)

    def __repr__(self) -> str:
        lives = ", ".join(f"{life.id} {life.finding.health} {life.in_flight}" for life in self._sorted())
        return f"<{type(self).__name__} [{lives}]>"

    # ---- what is heard of workers -----------------------------------------------------------------------------------

    def expect(self, worker_id: str, url: str = "") -> None:
        """There should be such a worker, at `url` if that is known."""
        life = self._lives.get(worker_id)
        if life is None:
            life = self._lives[worker_id] = self._new_life(worker_id, url)
            self._chronicle.tell(life, "balancer")
        life.named_at = self._clock()
        life.url = url or life.url

    def report(self, status: WorkerStatus) -> None:
        """A record was read; it may be an old one, or have been read before."""
        life = self._claims.writer_of(status)
        life.named_at = self._clock()
        if life.hear(status):
            self._settle(life, "report")
        self._settle_claim(status.id)

    def describe(self, worker_id: str, offer: Capabilities) -> None:
        """The worker has said what it can do."""
        life = self._lives[worker_id]
        life.offer = offer
        self._settle(life, "report")

    def answered(self, status: WorkerStatus, *, asked_at: float) -> None:
        """The worker at `status.url` gave this record when it was asked, at `asked_at`."""
        life = self._claims.writer_of(status)
        holder = self._lives[status.id]
        if life is not holder and status.url == holder.url and asked_at > holder.pulse.news_at:
            holder.pulse.refuse(Reason("replaced"))
        life.hear(status, asked_at=asked_at)
        life.pulse.answer()
        self._settle(life, "report")
        self._settle_claim(status.id)

    def refused(self, worker_id: str, why: str, *, url: str = "") -> None:
        """Nobody listens at `url`, the worker's address unless another is given, or it is taken for dead."""
        url = url or self.url(worker_id)
        for life in (*self._lives.values(), *self._claims):
            if (life.id, life.url) == (worker_id, url):
                life.pulse.refuse(why)
                self._settle(life, "call")
        self._settle_claim(worker_id)

    def tick(self) -> None:
        """Draw the conclusions that time alone brings about."""
        for life in list(self._lives.values()):
            self._settle(life, "clock")
            if self._is_over(life):
                del self._lives[life.id]
                self._chronicle.forget(life)
        for claimant in self._claims:
            self._settle_claim(claimant.id)

    # ---- what is asked of workers -----------------------------------------------------------------------------------

    def to_ask(self) -> set[tuple[str, str]]:
        """Id and address of the workers whose records say too little: they have to be asked themselves."""
        soon_old_s = 2 * self._rules.report_period_s
        doubtful = [
            life
            for life in self._lives.values()
            if not life.is_well or (life.pulse.status_age_s or 0.0) >= soon_old_s or life.id in self._claims
        ]
        return {(life.id, life.url) for life in (*doubtful, *self._claims) if life.url}

    def lacks_offer(self, worker_id: str) -> bool:
        """Is only missing what the worker can do?"""
        life = self._lives.get(worker_id)
        return life is not None and life.offer is None and life.finding.health != "down"

    def url(self, worker_id: str) -> str:
        """Where the worker listens; empty if that is not known."""
        life = self._lives.get(worker_id)
        return life.url if life is not None else ""

    def urls(self) -> set[str]:
        """Where workers listen."""
        return {life.url for life in (*self._lives.values(), *self._claims) if life.url}

    # ---- what people want -------------------------------------------------------------------------------------------

    def set_admin(self, worker_id: str, state: AdminState, *, force: bool) -> None:
        """A person's word, which nothing else changes. Raises UnknownWorker and, unless `force`, LastWorker."""
        life = self._lives.get(worker_id)
        if life is None:
            raise UnknownWorker(f"no worker {worker_id!r}; known: {', '.join(sorted(self._lives)) or 'none'}")
        if state != "ready" and not force and self._ready() == [life]:
            raise LastWorker(f'nobody but {worker_id} is ready; send "force": true if that is meant')
        self._set_admin(worker_id, state, actor="person", why=_MEANING[state])

    def admin_states(self) -> dict[str, AdminState]:
        """Worker id -> drain or maint."""
        return dict(self._admin)

    def restore_admin(self, states: Mapping[str, AdminState]) -> None:
        """Make `admin_states` what it was."""
        for worker_id in self._admin.keys() | states.keys():
            self._set_admin(worker_id, states.get(worker_id, "ready"), actor="balancer", why=Reason("restored"))

    # ---- how the whole stands ---------------------------------------------------------------------------------------

    @property
    def num_asked_for(self) -> int:
        """Workers there should be: those asked for, or else all that are known."""
        return len(self._lives)

    @property
    def num_ready(self) -> int:
        """Workers that take requests."""
        return len(self._ready())

    def state(self) -> ServiceState:
        """Is everybody there who should be, or anybody?"""
        if self.num_ready == 0:
            return "unavailable"
        return "ok" if self.num_ready >= self.num_asked_for else "degraded"

    def absence(self) -> str:
        """Why nobody is ready, in a sentence."""
        if not self._lives:
            return "no worker has been heard of; start one with: python app.py --mode worker"
        reasons = [
            f"{life.id}: {_MEANING[self._admin[life.id]] if life.id in self._admin else life.finding.why}"
            for life in self._sorted()
        ]
        return f"no worker is ready ({'; '.join(reasons)})"

    def has_been_up_within(self, seconds: float) -> bool:
        """Was somebody ready not longer ago than that?"""
        return bool(self._ready()) or self._clock() - self._last_up <= seconds

    def rows(self) -> tuple[WorkerRow, ...]:
        """The table."""
        wall_time = self._wall_clock()
        return tuple(life.row(admin=self._admin_of(life.id), wall_time=wall_time) for life in self._sorted())

    # ---- beneath ----------------------------------------------------------------------------------------------------

    def _new_life(self, worker_id: str, url: str) -> Worker:
        return Worker(
            worker_id,
            url,
            rules=self._rules,
            clock=self._clock,
            reference=self.reference,
            usual_speed=self._usual_speed,
        )

    def _settle_claim(self, worker_id: str) -> None:
        if self._claims.settle(worker_id):
            self._settle(self._lives[worker_id], "report")

    def _usual_speed(self) -> float:
        speeds = [life.known_speed for life in self._lives.values() if life.known_speed is not None]
        return fmean(speeds or [1.0])

    def _settle(self, life: Worker, actor: Actor) -> None:
        """Something has changed for `life`: decide what follows for all, and tell it."""
        if self._lives.get(life.id) is not life:
            return  # a call of an earlier life has ended
        demoted = half.demoted(self._serving())
        others = [each for each in self._lives.values() if each.is_demoted != (each in demoted) and each is not life]
        for each in (life, *others):
            each.is_demoted = each in demoted
        self._chronicle.tell(life, actor)
        for each in others:
            self._chronicle.tell(each, "balancer")
        if self._ready():
            self._last_up = self._clock()

    def _is_over(self, life: Worker) -> bool:
        """Has the worker gone for good, and does nobody speak of it any more?"""
        is_named = life.id in self._asked_for or self._clock() - life.named_at < self._rules.stale_after_s
        is_gone = life.finding.health == "down" and life.pulse.silent_s >= self._rules.forget_after_s
        return is_gone and not is_named and life.in_flight == 0

    def _admin_of(self, worker_id: str) -> AdminState:
        return self._admin.get(worker_id, "ready")

    def _set_admin(self, worker_id: str, state: AdminState, *, actor: Actor, why: str) -> None:
        before = self._admin_of(worker_id)
        if state == before:
            return
        self._admin[worker_id] = state
        if state == "ready":
            del self._admin[worker_id]
        self._on_event(worker_id, actor, f"{before} -> {state}", why)
        if worker_id in self._lives:
            self._settle(self._lives[worker_id], "balancer")

    def _ready(self) -> list[Worker]:
        return [life for life in self._lives.values() if self._admin_of(life.id) == "ready" and life.is_well]

    def _serving(self) -> list[Worker]:
        """Those who work, well or not: what "at most half" is counted over."""
        well_or_not = ("up", "demoted", "suspect")
        return [
            life
            for life in self._lives.values()
            if self._admin_of(life.id) == "ready" and life.finding.health in well_or_not
        ]

    def _sorted(self) -> list[Worker]:
        """qwen-2 before qwen-10."""
        return sorted(self._lives.values(), key=lambda life: [*map(_number_or_text, re.split(r"(\d+)", life.id))])


def _number_or_text(part: str) -> tuple[int, str]:
    return (int(part), "") if part.isdecimal() else (0, part)
