"""The time by which a request must have ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import TypeVar

from qwen_aio.errors import DeadlineExceeded
from qwen_aio.next_event import next_event

T = TypeVar("T")


class Deadline:
    """`limit_s` seconds from now, `at` on the loop's clock. `advice` ends the error's message."""

    def __init__(self, limit_s: float, *, advice: str = "send less or raise timeout_s") -> None:
        self._limit_s = limit_s
        self._advice = advice
        self.at = asyncio.get_running_loop().time() + limit_s

    @property
    def left_s(self) -> float:
        """Seconds left; always above zero."""
        return max(self.at - asyncio.get_running_loop().time(), 0.001)

    async def next(self, events: AsyncGenerator[T, None]) -> T | None:
        """The next of `events`, None at their end. Raises DeadlineExceeded."""
        return await next_event(events, asyncio.timeout_at(self.at), self.exceeded)

    def exceeded(self) -> DeadlineExceeded:
        """The error of a request that did not end in time."""
        return DeadlineExceeded(f"not finished within {self._limit_s:g} s; {self._advice}")
