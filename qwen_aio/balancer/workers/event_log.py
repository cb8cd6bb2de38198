"""Records every change of a worker's state once: who or what changed it, what, and why.

A restarted worker continues the history of its id: `up -> starting`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from qwen_aio.balancer.reasons import BREAKER_CLOSED, BREAKER_HALF_OPEN, BREAKER_OPEN, Reason
from qwen_aio.balancer.snapshot import BreakerState, HealthState
from qwen_aio.balancer.workers.worker import Worker

Actor = Literal["person", "report", "call", "clock", "balancer"]
OnEvent = Callable[[str, str, str, str], None]  # worker, actor, change, why


@dataclass(frozen=True)
class _State:
    """What was last recorded of a worker."""

    health: HealthState | Literal["unknown"] = "unknown"
    breaker: BreakerState = "closed"
    is_frozen: bool = False  # its report stands still although it is up


class EventLog:
    """Compares a worker with what was last recorded of its id."""

    def __init__(self, on_event: OnEvent) -> None:
        self._on_event = on_event
        self._states: dict[str, _State] = {}  # by worker id

    def record(self, worker: Worker, actor: Actor) -> None:
        """Record what has changed, if anything has."""
        before, health = self._states.get(worker.id, _State()), worker.health
        now = _State(health.state, worker.breaker.state, worker.is_well and worker.heartbeat.is_frozen)
        self._states[worker.id] = now
        if now.health != before.health:
            self._on_event(worker.id, actor, f"{before.health} -> {now.health}", health.why)
        elif now.is_frozen and not before.is_frozen:
            self._on_event(worker.id, actor, "record stands still", health.why)
        if now.breaker != before.breaker:
            self._on_event(worker.id, actor, f"breaker {before.breaker} -> {now.breaker}", _breaker_why(worker))

    def forget(self, worker: Worker) -> None:
        """Record that the worker has left the table."""
        before = self._states.pop(worker.id, _State())
        self._on_event(worker.id, "clock", f"{before.health} -> forgotten", worker.health.why)


def _breaker_why(worker: Worker) -> str:
    match worker.breaker.state:
        case "open":
            return Reason(BREAKER_OPEN, seconds=worker.breaker.retry_in_s, failure=worker.last_failure)
        case "half_open":
            return Reason(BREAKER_HALF_OPEN)
        case "closed":
            return Reason(BREAKER_CLOSED)
