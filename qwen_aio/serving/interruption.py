"""Work that is given up when something else happens first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
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


async def all_results(works: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results in order; the first error cancels the rest and is raised when all have ended."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def cancel(task: asyncio.Future[Any]) -> None:
    """Cancel `task` and wait until it is done; its result is ignored."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()  # retrieved, so that asyncio does not log it
