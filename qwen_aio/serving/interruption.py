"""Work that is given up when something else happens first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

E = TypeVar("E")
T = TypeVar("T")


async def result_unless(
    event: Coroutine[Any, Any, E], work: Coroutine[Any, Any, T], *, error: Callable[[E], Exception]
) -> T:
    """The result of `work`; if `event` comes first, cancels it and raises `error` of what came."""
    working, waiting = asyncio.ensure_future(work), asyncio.ensure_future(event)
    try:
        await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise error(waiting.result())
        return working.result()
    finally:
        await cancel(working)
        await cancel(waiting)


async def cancel(task: asyncio.Future[Any]) -> None:
    """Cancel `task` and wait until it is done; its result is ignored."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()  # retrieved, so that asyncio does not log it
