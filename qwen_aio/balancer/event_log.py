"""Tells every change of a worker's state once: who or what changed it, what, and why. Owned by the event loop.

A new life of a worker goes on where the old one ended: `up -> starting`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from qwen_aio.balancer.reasons import Reason
from qwen_aio.balancer.snapshot import BreakerState, HealthState
from qwen_aio.balancer.workers.worker import Worker

Actor = Literal["person", "report", "call", "clock", "balancer"]
OnEvent = Callable[[str, str, str, str], None]  # worker, actor, change, why


@dataclass(frozen=True)
class _Told:
    """What was last told of a worker."""

    health: HealthState | Literal["unknown"] = "unknown"
    breaker: BreakerState = "closed"
    is_frozen: bool = False  # its record stands still although it is up


class EventLog:
    """Compares a life with what was last told of its worker."""

    def __init__(self, on_event: OnEvent) -> None:
        self._on_event = on_event
        self._told: dict[str, _Told] = {}  # by worker id

    def tell(self, life: Worker, actor: Actor) -> None:
        """Tell what has changed; nothing, if nothing has."""
        told, found = self._told.get(life.id, _Told()), life.finding
        now = _Told(found.health, life.breaker.state, life.is_well and life.pulse.is_frozen)
        self._told[life.id] = now
        if now.health != told.health:
            self._on_event(life.id, actor, f"{told.health} -> {now.health}", found.why)
        elif now.is_frozen and not told.is_frozen:
            self._on_event(life.id, actor, "record stands still", found.why)
        if now.breaker != told.breaker:
            self._on_event(life.id, actor, f"breaker {told.breaker} -> {now.breaker}", _breaker_why(life))

    def forget(self, life: Worker) -> None:
        """Tell that the worker has left the table."""
        told = self._told.pop(life.id, _Told())
        self._on_event(life.id, "clock", f"{told.health} -> forgotten", life.finding.why)


def _breaker_why(life: Worker) -> str:
    match life.breaker.state:
        case "open":
            return Reason("breaker_open", seconds=life.breaker.retry_in_s, failure=life.last_failure)
        case "half_open":
            return Reason("breaker_half_open")
        case "closed":
            return Reason("breaker_closed")
