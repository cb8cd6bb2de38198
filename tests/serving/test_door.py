import asyncio

import pytest

from qwen_aio.core import Done, Request, TextDelta
from qwen_aio.errors import Draining, EngineStopped, NotReady
from qwen_aio.serving.admission import AdmissionGate
from tests.fakes import FakeEngine
from tests.served import TASKS, WatchedEngine, Worker


async def test_nobody_enters_before_the_door_opens():
    door = Worker(FakeEngine(), is_open=False).door
    assert door.state == "starting"
    for ask in (door.run(Request("hi")), door.tasks()):
        with pytest.raises(NotReady):
            await ask


async def test_who_comes_too_early_hears_what_it_is_that_starts():
    with pytest.raises(NotReady, match="the tea is still brewing"):
        await AdmissionGate(starting="the tea is still brewing").run(Request("hi"))


async def test_those_inside_finish_while_draining():
    gate = asyncio.Event()
    door = Worker(WatchedEngine(gate=gate)).door
    events = door.stream(Request("hi", "chat"))
    assert await anext(events) == TextDelta("你", index=0)
    door.drain()
    assert (door.state, door.in_flight) == ("draining", 1)
    with pytest.raises(Draining):
        await door.run(Request("hi"))
    assert await door.tasks() == TASKS
    gate.set()
    assert [type(event) async for event in events] == [TextDelta, Done]
    await door.wait_empty()


async def test_all_texts_of_a_list_finish_while_draining():
    gate = asyncio.Event()
    door = Worker(WatchedEngine(gate=gate)).door
    running = asyncio.ensure_future(door.run_all([Request("hi", "sentiment")] * 30, timeout_s=60))
    await asyncio.sleep(0)
    door.drain()
    gate.set()
    assert [result.mode for result in await running] == ["sentiment"] * 30
    await door.wait_empty()


async def test_those_inside_get_the_refusal_when_they_are_cut_off():
    engine = WatchedEngine(gate=asyncio.Event())
    door = Worker(engine).door
    events = door.stream(Request("hi", "chat"))
    await anext(events)
    waiting = asyncio.ensure_future(anext(events))
    await engine.begun.wait()
    door.drain()
    door.cut_off()
    with pytest.raises(Draining):
        await waiting
    await door.wait_empty()
    assert engine.open_streams == 0


async def test_cutting_off_reaches_one_who_is_busy_with_an_event():
    engine = FakeEngine(gate=asyncio.Event())
    door = Worker(engine).door
    events = door.stream(Request("hi", "chat"))
    await anext(events)
    door.fail("gone")
    door.cut_off()
    with pytest.raises(EngineStopped, match="gone"):
        await anext(events)
    assert engine.open_streams == 0


async def test_a_failed_worker_stays_failed():
    door = Worker(FakeEngine()).door
    door.fail("gone")
    door.drain()
    assert door.state == "failed"


async def test_a_worker_told_to_stop_while_loading_never_opens():
    worker = Worker(FakeEngine(), is_open=False)
    worker.door.drain()
    worker.open()
    assert worker.door.state == "draining"


async def test_whoever_leaves_is_no_longer_counted():
    engine = FakeEngine()
    door = Worker(engine).door
    events = door.stream(Request("hi", "chat"))
    await anext(events)
    assert door.in_flight == 1
    await events.aclose()
    assert (door.in_flight, engine.open_streams) == (0, 0)
