"""At most half of the workers are pushed aside: where most look bad it is the load, and the rest could not bear it.

Counted are those who serve: not down, not starting, not taken out by a person.
"""

from __future__ import annotations

from collections.abc import Sequence

from qwen_aio.balancer.workers.worker import Worker


def demoted(serving: Sequence[Worker]) -> list[Worker]:
    """Who of `serving` is demoted: of those whose reports demand it the slowest."""
    wanting = sorted((life for life in serving if life.demotion.wants), key=lambda life: -life.demotion.slow_ms)
    return wanting[: len(serving) // 2]


def may_open(life: Worker, serving: Sequence[Worker]) -> bool:
    """May the breaker of `life` open, with the breakers of others as they are?"""
    others = sum(other.breaker.state != "closed" for other in serving if other is not life)
    return others + 1 <= len(serving) // 2
