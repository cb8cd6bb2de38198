import asyncio
from contextlib import suppress

import pytest

from qwen_aio.next_event import interrupt, next_event


class Interrupted(Exception):
    """What a limit of this test's own leads to."""


async def one_then(wait):
    yield 1
    await wait


async def never():
    await asyncio.Event().wait()
    yield


async def failing(error):
    raise error
    yield


async def test_events_come_in_order_and_none_ends_them():
    events = one_then(asyncio.sleep(0))
    assert [await next_event(events, asyncio.timeout(None), Interrupted) for _ in range(3)] == [1, None, None]


async def test_its_own_limit_raises_what_was_asked_for_and_ends_the_events():
    events = one_then(asyncio.Event().wait())
    await anext(events)
    with pytest.raises(Interrupted) as caught:
        await next_event(events, asyncio.timeout(0.001), Interrupted)
    assert isinstance(caught.value.__cause__, TimeoutError)
    assert await anext(events, None) is None


@pytest.mark.parametrize("limit_s", [None, 60])
async def test_a_timeout_of_the_events_themselves_passes_through(limit_s):
    error = TimeoutError("theirs")
    with pytest.raises(TimeoutError) as caught:
        await next_event(failing(error), asyncio.timeout(limit_s), Interrupted)
    assert caught.value is error


async def test_a_limit_inside_the_events_is_not_taken_for_this_one():
    async def limited():
        async with asyncio.timeout(0.001):
            await asyncio.Event().wait()
        yield

    with pytest.raises(TimeoutError):
        await next_event(limited(), asyncio.timeout(60), Interrupted)


@pytest.mark.parametrize("times", [1, 2])
async def test_a_wait_can_be_interrupted_from_outside(times):
    limit = asyncio.timeout(None)
    waiting = asyncio.ensure_future(next_event(never(), limit, Interrupted))
    await asyncio.sleep(0)
    for _ in range(times):
        interrupt(limit)
        await asyncio.sleep(0)
    with pytest.raises(Interrupted):
        await waiting


async def test_a_cancellation_from_outside_stays_one():
    waiting = asyncio.ensure_future(next_event(never(), asyncio.timeout(60), Interrupted))
    await asyncio.sleep(0)
    waiting.cancel()
    with suppress(asyncio.CancelledError):
        await waiting
    assert waiting.cancelled()
