"""A time by which a stream of events must have ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TypeVar

from qwen_aio.errors import DeadlineExceeded

T = TypeVar("T")


async def within(events: AsyncGenerator[T, None], limit_s: float) -> AsyncGenerator[T, None]:
    """All of `events`, if they end within `limit_s` seconds from now. Raises DeadlineExceeded."""
    deadline = asyncio.get_running_loop().time() + limit_s
    async with aclosing(events):
        while True:
            try:
                # Per event and not around the loop: a timeout must not strike while the consumer holds the event.
                async with asyncio.timeout_at(deadline):
                    event = await anext(events)
            except StopAsyncIteration:
                return
            except TimeoutError as exc:
                raise DeadlineExceeded(f"not finished within {limit_s:g} s; send less or raise timeout_s") from exc
            yield event
