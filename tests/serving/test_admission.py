import asyncio

import pytest

from qwen_aio.core import Request
from qwen_aio.errors import DeadlineExceeded, Draining, EngineStopped, NotReady
from qwen_aio.result import Done, TextDelta
from qwen_aio.serving.admission import AdmissionGate
from tests.fakes import FakeEngine
from tests.served import TASKS, WatchedEngine, Worker


async def test_no_request_is_admitted_before_the_gate_opens():
    gate = Worker(FakeEngine(), is_open=False).gate
    assert gate.state == "starting"
    for ask in (gate.run(Request("hi")), gate.capabilities()):
        with pytest.raises(NotReady):
            await ask


async def test_an_early_request_gets_the_message_of_what_starts():
    with pytest.raises(NotReady, match="the tea is still brewing"):
        await AdmissionGate(starting="the tea is still brewing").run(Request("hi"))


async def test_requests_in_flight_finish_while_draining():
    release = asyncio.Event()
    gate = Worker(WatchedEngine(gate=release)).gate
    events = gate.stream(Request("hi", "chat"))
    assert await anext(events) == TextDelta("你", index=0)
    gate.drain()
    assert (gate.state, gate.in_flight) == ("draining", 1)
    with pytest.raises(Draining):
        await gate.run(Request("hi"))
    assert (await gate.capabilities()).tasks == TASKS
    release.set()
    assert [type(event) async for event in events] == [TextDelta, Done]
    await gate.wait_empty()


async def test_all_texts_of_a_list_finish_while_draining():
    release = asyncio.Event()
    gate = Worker(WatchedEngine(gate=release)).gate
    running = asyncio.ensure_future(gate.run_all([Request("hi", "sentiment")] * 30, timeout_s=60))
    await asyncio.sleep(0)
    gate.drain()
    release.set()
    assert [result.mode for result in await running] == ["sentiment"] * 30
    await gate.wait_empty()


async def test_requests_in_flight_get_the_refusal_when_they_are_cut_off():
    engine = WatchedEngine(gate=asyncio.Event())
    gate = Worker(engine).gate
    events = gate.stream(Request("hi", "chat"))
    await anext(events)
    waiting = asyncio.ensure_future(anext(events))
    await engine.begun.wait()
    gate.drain()
    gate.cut_off()
    with pytest.raises(Draining):
        await waiting
    await gate.wait_empty()
    assert engine.open_streams == 0


async def test_cutting_off_reaches_a_client_that_holds_an_event():
    engine = FakeEngine(gate=asyncio.Event())
    gate = Worker(engine).gate
    events = gate.stream(Request("hi", "chat"))
    await anext(events)
    gate.fail("gone")
    gate.cut_off()
    with pytest.raises(EngineStopped, match="gone"):
        await anext(events)
    assert engine.open_streams == 0


async def test_a_failed_worker_stays_failed():
    gate = Worker(FakeEngine()).gate
    gate.fail("gone")
    gate.drain()
    assert gate.state == "failed"


async def test_who_owns_the_gate_learns_each_state_once():
    states: list[str] = []
    gate = AdmissionGate(on_state=states.append)
    gate.open(Worker(FakeEngine()).gate.service)
    for _ in range(2):
        gate.drain()
    gate.fail("gone")
    gate.drain()
    assert states == ["ready", "draining", "failed"]


async def test_a_worker_stopped_while_loading_never_opens():
    worker = Worker(FakeEngine(), is_open=False)
    worker.gate.drain()
    worker.open()
    assert worker.gate.state == "draining"


async def test_a_client_that_leaves_is_no_longer_counted():
    engine = FakeEngine()
    gate = Worker(engine).gate
    events = gate.stream(Request("hi", "chat"))
    await anext(events)
    assert gate.in_flight == 1
    await events.aclose()
    assert (gate.in_flight, engine.open_streams) == (0, 0)


async def test_a_list_that_takes_too_long_ends_and_frees_the_engine():
    engine = WatchedEngine(gate=asyncio.Event())
    gate = Worker(engine).gate
    with pytest.raises(DeadlineExceeded, match="send fewer texts"):
        await gate.run_all([Request("hi", "chat")] * 3, timeout_s=0.01)
    assert (gate.in_flight, engine.open_streams) == (0, 0)


class TimingOut:
    """A service whose own timeout strikes."""

    async def stream(self, request: Request):
        raise TimeoutError("theirs")
        yield


async def test_a_timeout_of_the_service_itself_is_not_taken_for_the_gate_s():
    gate = AdmissionGate()
    gate.open(TimingOut())
    asks = (gate.run(Request("hi")), gate.run_all([Request("hi")], timeout_s=60), anext(gate.stream(Request("hi"))))
    for ask in asks:
        with pytest.raises(TimeoutError, match="theirs"):
            await ask
    assert gate.in_flight == 0
