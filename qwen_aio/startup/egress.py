"""The egress guard of this process, as the settings want it."""

from __future__ import annotations

from functools import cache

from qwen_aio.config import Settings
from qwen_aio.egress.guard import EgressGuard


def egress_guard(settings: Settings, *urls: str) -> EgressGuard:
    """The one guard of this process; it watches unless --no-offline. `urls` are servers that it lets through."""
    guard = _guard_of_process()
    for url in urls:
        guard.peers.add(url)
    if settings.offline:
        guard.watch()
    return guard


@cache
def _guard_of_process() -> EgressGuard:
    return EgressGuard()  # one, since a hook of the process can be neither changed nor taken away
