"""Asking about one row after the other, many at once, in their order; waiting for a server that is busy or away.

A row that cannot be answered is a Labelled with a fault and costs that row alone.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol

from qwen_aio.bounds import MAX_TIMEOUT_S
from qwen_aio.bulk.table import Row, RowTable
from qwen_aio.core import Capabilities, Request
from qwen_aio.errors import (
    AnswerBroken,
    DeadlineExceeded,
    Draining,
    InvalidRequest,
    NotReady,
    NoWorker,
    PoisonRequest,
    QueueFull,
    QwenAioError,
    RateLimited,
    RequestFailed,
    ServerUnreachable,
)
from qwen_aio.result import Result
from qwen_aio.visible import check_visible

AT_ONCE = 64  # rows asked about at the same time: a worker's batches stay full
OF_THE_ROW = (InvalidRequest, PoisonRequest, AnswerBroken, RequestFailed, DeadlineExceeded)
PASSING = (QueueFull, RateLimited, NotReady, NoWorker, Draining, ServerUnreachable)
PATIENCE_S = 120.0  # without any answer
PAUSE_S = 1.0  # before it is asked again, unless the server says how long


class Asked(Protocol):
    """A worker, a balancer or an engine in this process."""

    async def run(self, request: Request) -> Result: ...
    async def capabilities(self) -> Capabilities: ...


class Patient:
    """`asked`, asked again while it is busy or away, until it has answered nothing for PATIENCE_S."""

    def __init__(self, asked: Asked, *, pause: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._asked = asked
        self._pause = pause
        self._num_answered = 0

    async def run(self, request: Request) -> Result:
        """The result. Raises what does not pass, and what has not passed.

        A request without a limit gets the longest one: it waits behind many others, perhaps of a slow model.
        """
        request = replace(request, timeout_s=request.timeout_s or MAX_TIMEOUT_S)
        waited_s, seen = 0.0, self._num_answered
        while True:
            try:
                result = await self._asked.run(request)
            except PASSING as exc:
                if self._num_answered != seen:  # it answers others: this one's turn will come
                    waited_s, seen = 0.0, self._num_answered
                pause_s = float(exc.retry_after_s or PAUSE_S)
                waited_s += pause_s
                if waited_s > PATIENCE_S:
                    raise
                await self._pause(pause_s)
            else:
                self._num_answered += 1
                return result

    async def capabilities(self) -> Capabilities:
        """As the server says; not asked again, so that a wrong address is told at once."""
        return await self._asked.capabilities()


@dataclass(frozen=True)
class Labelled:
    """A row and what came out: a result, or the fault of this row."""

    row: Row
    result: Result | None = None
    fault: str | None = None


class Asker:
    """Puts the texts of one column to one task."""

    def __init__(self, asked: Asked, request: Request, table: RowTable, column: str, *, at_once: int = AT_ONCE) -> None:
        """`request` is asked with each row's text in the place of its own, of so many rows at the same time."""
        self._asked = asked
        self._request = request
        self._table = table
        self._column = column
        self._at_once = at_once

    async def labelled(self, rows: Iterable[Row]) -> AsyncGenerator[Labelled, None]:
        """The rows in their order. Raises what no row is to blame for, and ends all that is under way then."""
        waiting: deque[asyncio.Task[Labelled]] = deque()
        try:
            for row in rows:
                waiting.append(asyncio.create_task(self._label(row)))
                if len(waiting) >= self._at_once:
                    yield await waiting.popleft()
            while waiting:
                yield await waiting.popleft()
        finally:
            for task in waiting:
                task.cancel()
            for task in waiting:
                with suppress(asyncio.CancelledError, QwenAioError):
                    await task

    async def _label(self, row: Row) -> Labelled:
        if row.fault is not None:
            return Labelled(row, fault=row.fault)
        try:
            text = self._table.value(row, self._column)
            check_visible(text, param="the text")
            return Labelled(row, await self._asked.run(replace(self._request, text=text)))
        except OF_THE_ROW as exc:
            return Labelled(row, fault=exc.message)
