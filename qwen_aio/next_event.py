"""The next event of a stream, unless its limit strikes first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import TypeVar

T = TypeVar("T")


async def next_event(
    events: AsyncGenerator[T, None], limit: asyncio.Timeout, interrupted: Callable[[], BaseException]
) -> T | None:
    """The next of `events`, None at their end. Raises `interrupted()` if `limit` strikes first.

    One limit serves one event, so that it never strikes while the consumer holds one. A
    TimeoutError that the events raise themselves is passed on.
    """
    try:
        async with limit:
            return await anext(events, None)
    except TimeoutError as exc:
        if not limit.expired():
            raise
        raise interrupted() from exc


def interrupt(limit: asyncio.Timeout) -> None:
    """End the wait that `limit` is around, now. No effect on a limit that has struck already."""
    if not limit.expired():
        limit.reschedule(asyncio.get_running_loop().time())
