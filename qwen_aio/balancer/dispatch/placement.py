"""Who takes the next job: asks the policy among the workers that have a place for it, and hands out a seat there.

Owned by the event loop, like the roster beneath it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from qwen_aio.balancer.cost.policies import Policy, cost
from qwen_aio.balancer.cost.queue import QueuedRequest
from qwen_aio.balancer.dispatch.slot import Slot
from qwen_aio.balancer.event_log import OnEvent
from qwen_aio.balancer.params import Params
from qwen_aio.balancer.reasons import Reason
from qwen_aio.balancer.snapshot import Cost
from qwen_aio.balancer.workers import ejection as half
from qwen_aio.balancer.workers.registry import Registry
from qwen_aio.balancer.workers.worker import Worker
from qwen_aio.core import Capabilities, ContextLimits


class Placement(Registry):
    """A roster whose workers are given work."""

    def __init__(
        self,
        rules: Params,
        *,
        policy: Policy,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        on_event: OnEvent,
        asked_for: Collection[str],
    ) -> None:
        """`asked_for`: ids that stay in the table, whatever becomes of them."""
        super().__init__(rules, clock=clock, wall_clock=wall_clock, on_event=on_event, asked_for=asked_for)
        self._policy = policy
        self._turns = 0  # jobs bound so far
        self._last_offer: Capabilities | None = None

    def bind(self, job: QueuedRequest) -> Slot | None:
        """A seat on the best worker that has a place for `job`; None if nobody has."""
        free = self._free(job)
        candidate = self._policy.choose(job.work_s, [life.candidate for life in _due(free, job) or free])
        if candidate is None:
            return None
        life = self._lives[candidate.id]
        if life.is_probe_due:
            life.demotion.probe_sent()
        self._turns += 1
        life.take(job, self._turns)
        return Slot(
            life,
            job,
            why=_reason(cost(candidate, job.work_s, self._rules)),
            may_open=lambda: half.may_open(life, self._serving()),
            on_change=lambda: self._settle(life, "call"),
        )

    def has_place(self, job: QueuedRequest) -> bool:
        """Would `bind` find a seat?"""
        return bool(self._free(job))

    def has_another(self, job: QueuedRequest) -> bool:
        """Is somebody there who could take `job`, now or later?"""
        return any(life.suits(job) for life in self._ready())

    def predicted_wait_s(self, ahead_s: float) -> float | None:
        """Seconds until what waits, `ahead_s` of work, has found its places; None while nobody is ready.

        A speed is that of one call among those it ran beside, so a worker does as many times that as calls run on it.
        """
        ready = self._ready()
        if not ready:
            return None
        if ahead_s == 0 and any(life.has_room for life in ready):
            return 0.0
        work_s = ahead_s + sum(life.work_s for life in ready)
        return work_s / sum(life.speed * max(life.in_flight, 1) for life in ready)

    def offer(self) -> Capabilities | None:
        """What the ready workers can do, all together, else what was last known; None until one has told."""
        offers = [life.offer for life in self._ready() if life.offer is not None]
        if offers:
            self._last_offer = _together(offers)
        return self._last_offer

    def _free(self, job: QueuedRequest) -> list[Worker]:
        return [life for life in self._ready() if life.can_take(job)]


def _due(free: Sequence[Worker], job: QueuedRequest) -> list[Worker]:
    """Whoever must be given something short, whatever it costs, or could never show that it is better than believed."""
    return [life for life in free if life.is_probe_due] if job.kind == "decision" else []


def _reason(terms: Cost) -> Reason:
    """The cost and its terms, as the log shows them; factors that change nothing are left out."""
    factors = {"jitter": terms.jitter_factor, "failures": terms.failure_factor, "demotion": terms.demotion_factor}
    told = [Reason(name, factor=factor) for name, factor in factors.items() if factor >= 1.005]
    return Reason("cost", *told, total=terms.total, queue_s=terms.queue_s)


def _together(offers: Sequence[Capabilities]) -> Capabilities:
    """All tasks; limits that every worker can keep."""
    tasks = {name: task for offer in reversed(offers) for name, task in offer.tasks.items()}
    context = ContextLimits(
        min(offer.context.tokens for offer in offers), min(offer.context.answer_tokens for offer in offers)
    )
    return Capabilities(tasks, context, offers[0].model, "balancer")
