"""The result of work, unless an event comes first."""

from __future__ import annotations

import asyncio

import pytest

from qwen_aio.serving.interruption import result_unless


class Came(Exception):
    """The event came, with this value."""


async def test_work_that_ends_first_gives_its_result_and_the_event_is_cancelled():
    cancelled = asyncio.Event()

    async def event() -> int:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return 1

    async def work() -> str:
        await asyncio.sleep(0)
        return "done"

    assert await result_unless(event(), work(), error=Came) == "done"
    assert cancelled.is_set()


async def test_an_event_that_comes_first_cancels_the_work_and_is_raised():
    cancelled = asyncio.Event()

    async def event() -> int:
        await asyncio.sleep(0)
        return 7

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with pytest.raises(Came, match="7"):
        await result_unless(event(), work(), error=Came)
    assert cancelled.is_set()


async def test_an_error_of_the_work_is_raised_as_it_is():
    async def work() -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await result_unless(asyncio.Event().wait(), work(), error=lambda _: Came())
