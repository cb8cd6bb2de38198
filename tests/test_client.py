import asyncio
import errno
import os
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_aio.client.async_client import AsyncClient
from qwen_aio.client.frames import MAX_EVENT_BYTES, FrameReader
from qwen_aio.core import ContextLimits, DecidedLabel, EngineRequest, Message, Request, SamplingWish
from qwen_aio.errors import (
    BadReply,
    ConnectionLost,
    EngineStopped,
    InvalidRequest,
    NotReady,
    QueueFull,
    ServerUnreachable,
    UnknownTask,
)
from qwen_aio.result import Answer, AnswerStart, Decided, Decision, Done, TextDelta
from qwen_aio.wire.engine import engine_frame
from qwen_aio.wire.event import event_frame
from tests.fakes import FakeEngine, user_text
from tests.served import TASKS, WatchedEngine, Worker, served
from tests.test_wire import ANSWER

STORY = "刚收到货,包装完好,但颜色和图片不太一样,有点小失望"


async def test_a_result_comes_through_as_it_is_in_process():
    engine = FakeEngine(pieces=("抱歉", "。"))
    async with served(Worker(engine)) as there, AsyncClient(there.url + "/") as client:
        result = await client.run(Request(STORY, reply=True, request_id="r1"))
    assert (result.request_id, result.mode, result.decision.label) == ("r1", "sentiment", "negative")
    assert result.merged_line == '【😔 LLM 情感判断:负面|高置信】→ "抱歉。"'
    assert result.decision.usage.cached_tokens == 71


async def test_a_stream_comes_through_event_by_event():
    async with served(Worker(FakeEngine(pieces=("a", "", "b\n\ndata: x")))) as there, AsyncClient(there.url) as client:
        events = [event async for event in client.stream(Request(STORY, reply=True))]
    assert [type(event) for event in events] == [Decided, TextDelta, TextDelta, Done]
    assert events[1:3] == [TextDelta("a", index=0), TextDelta("b\n\ndata: x", index=1)]
    assert events[-1].result.answer.text == "ab\n\ndata: x"


async def test_history_and_wishes_reach_the_engine():
    engine = FakeEngine()
    history = (Message("user", "x"), Message("assistant", "y"))
    async with served(Worker(engine)) as there, AsyncClient(there.url) as client:
        await client.run(
            Request("hi", "chat", history=history, sampling=SamplingWish(max_tokens=3, stop=("。",), seed=5))
        )
    assert (engine.samplings[0].max_tokens, engine.samplings[0].stop, engine.samplings[0].seed) == (3, ("。",), 5)
    assert len(engine.prompts[0].turns) == 1
    assert user_text(engine.prompts[0]) == "hi"


async def test_a_closed_stream_ends_the_work():
    engine = WatchedEngine(gate=asyncio.Event())
    async with served(Worker(engine)) as there, AsyncClient(there.url) as client:
        events = client.stream(Request("hi", "chat"))
        assert await anext(events) == TextDelta("你", index=0)
        await engine.begun.wait()
        await events.aclose()
        await engine.freed.wait()
        await there.worker.gate.wait_empty()
    assert (engine.open_streams, engine.cancelled) == (0, 1)


async def test_a_cancelled_run_ends_the_work():
    engine = WatchedEngine(gate=asyncio.Event())
    async with served(Worker(engine)) as there, AsyncClient(there.url) as client:
        running = asyncio.create_task(client.run(Request("hi", "chat")))
        await engine.begun.wait()
        running.cancel()
        await engine.freed.wait()
        await there.worker.gate.wait_empty()
    assert engine.open_streams == 0


@pytest.mark.parametrize("reply", [False, True])
async def test_an_error_is_raised_by_its_own_class(reply):
    async with (
        served(Worker(FakeEngine(error=QueueFull("full up", retry_after_s=4)))) as there,
        AsyncClient(there.url) as client,
    ):
        with pytest.raises(QueueFull, match="full up") as caught:
            await client.run(Request("hi", reply=reply))
    assert caught.value.retry_after_s == 4


async def test_an_error_inside_a_stream_is_raised_after_what_came_before():
    engine = FakeEngine(pieces=("a", "b"), error=EngineStopped("gone"), error_after=1)
    async with served(Worker(engine)) as there, AsyncClient(there.url) as client:
        events = client.stream(Request("hi", "chat"))
        assert await anext(events) == TextDelta("a", index=0)
        with pytest.raises(EngineStopped, match="gone"):
            await anext(events)


async def test_mistakes_are_reported_by_name():
    async with served(Worker(FakeEngine())) as there, AsyncClient(there.url) as client:
        with pytest.raises(UnknownTask) as caught:
            await client.run(Request("hi", "poetry"))
        assert caught.value.param == "mode"
        with pytest.raises(InvalidRequest):
            await anext(client.stream(Request(" ")))


async def test_tasks_and_health():
    async with served(Worker(FakeEngine())) as there, AsyncClient(there.url) as client:
        assert {name: task.labels for name, task in (await client.capabilities()).tasks.items()} == {
            name: task.labels for name, task in TASKS.items()
        }
        assert (await client.health())["state"] == "ready"


async def test_the_capabilities_say_who_serves_what_within_which_limits():
    async with served(Worker(FakeEngine())) as there, AsyncClient(there.url) as client:
        capabilities = await client.capabilities()
    assert (capabilities.worker, capabilities.model, capabilities.context) == (
        "qwen-1",
        "fake",
        ContextLimits(2048, 1024),
    )
    assert {name: task.hash for name, task in capabilities.tasks.items()} == {
        name: task.hash for name, task in TASKS.items()
    }


async def test_a_server_that_is_not_ready_can_be_asked_how_it_is():
    async with served(Worker(FakeEngine(), is_open=False)) as there, AsyncClient(there.url) as client:
        assert (await client.health())["state"] == "starting"
        with pytest.raises(NotReady):
            await client.capabilities()
        with pytest.raises(NotReady):
            await client.run(Request("hi"))


def every_question(client: AsyncClient) -> list[Awaitable[object]]:
    """Everything that can be asked of a server."""
    streams = (client.stream(Request("hi")), client.execute(EngineRequest("r1", "chat", "hi")))
    return [client.run(Request("hi")), client.capabilities(), client.health(), *map(anext, streams)]


async def test_no_server_is_reported_with_the_address_and_how_to_check():
    async with served(Worker(FakeEngine())) as there:
        port = there.port
    async with AsyncClient(f"http://127.0.0.1:{port}") as client:
        for ask in every_question(client):
            with pytest.raises(
                ServerUnreachable, match=rf"http://127.0.0.1:{port}.*curl http://127.0.0.1:{port}/health"
            ) as caught:
                await ask
            assert caught.value.code == "server_unreachable"
            assert f"({os.strerror(errno.ECONNREFUSED)})" in caught.value.message


@pytest.mark.parametrize("url", ["not an address", "http://", "ftp://127.0.0.1/"])
async def test_an_address_that_is_none_is_reported(url):
    async with AsyncClient(url) as client:
        with pytest.raises(ServerUnreachable, match="no answer from") as caught:
            await client.capabilities()
        assert caught.value.code == "server_unreachable"


# ---- engine requests ----


async def test_a_decision_is_executed():
    async with served(Worker(FakeEngine())) as there, AsyncClient(there.url) as client:
        [decision] = [event async for event in client.execute(EngineRequest("r1", "sentiment", STORY))]
    assert isinstance(decision, Decision)
    assert (decision.label, decision.worker, decision.model) == ("negative", "qwen-1", "fake")
    assert decision.usage.cached_tokens == 71


async def test_an_answer_is_executed_and_all_of_the_request_arrives():
    engine = FakeEngine(pieces=("a", "", "b\n\ndata: x", "c"))
    request = EngineRequest(
        "r1",
        "chat",
        STORY,
        history=(Message("user", "x"), Message("assistant", "y")),
        sampling=SamplingWish(max_tokens=9, stop=("。",), seed=5),
        decided=DecidedLabel("sentiment", "negative"),
        resume=(0,),
        timeout_s=9.5,
    )
    async with served(Worker(engine)) as there, AsyncClient(there.url) as client:
        start, *pieces, answer = [event async for event in client.execute(request)]
    assert start == AnswerStart(5, None)  # checked where it began
    assert pieces == [TextDelta("", (1,)), TextDelta("b\n\ndata: x", (2,)), TextDelta("c", (3,))]
    assert isinstance(answer, Answer)
    assert (answer.text, answer.finish_reason, answer.worker, answer.model) == (
        "b\n\ndata: xc",
        "stop",
        "qwen-1",
        "fake",
    )
    assert engine.call_ids == ["r1"]
    assert engine.resumes == [(0,)]
    assert (engine.samplings[0].max_tokens, engine.samplings[0].stop, engine.samplings[0].seed) == (9, ("。",), 5)
    assert len(engine.prompts[0].turns) == 1
    assert user_text(engine.prompts[0]) == f"{STORY}\n(负面)"


@pytest.mark.parametrize("task", ["sentiment", "chat"])
async def test_a_refused_request_raises_the_error_s_own_class(task):
    engine = FakeEngine(error=QueueFull("full up", retry_after_s=4))
    async with served(Worker(engine)) as there, AsyncClient(there.url) as client:
        with pytest.raises(QueueFull, match="full up") as caught:
            await anext(client.execute(EngineRequest("r1", task, "hi")))
    assert caught.value.retry_after_s == 4


async def test_an_error_inside_a_stream_is_raised_after_the_pieces_that_came_before():
    engine = FakeEngine(pieces=("a", "b"), error=EngineStopped("gone"), error_after=1)
    async with served(Worker(engine)) as there, AsyncClient(there.url) as client:
        events = client.execute(EngineRequest("r1", "chat", "hi"))
        assert isinstance(await anext(events), AnswerStart)
        assert await anext(events) == TextDelta("a", (0,))
        with pytest.raises(EngineStopped, match="gone"):
            await anext(events)


async def test_a_closed_stream_of_the_engine_ends_the_work():
    engine = WatchedEngine(gate=asyncio.Event())
    async with served(Worker(engine)) as there, AsyncClient(there.url) as client:
        events = client.execute(EngineRequest("r1", "chat", "hi"))
        assert isinstance(await anext(events), AnswerStart)
        assert await anext(events) == TextDelta("你", (0,))
        await engine.begun.wait()
        await events.aclose()
        await engine.freed.wait()
        await there.worker.gate.wait_empty()
    assert (engine.open_streams, engine.cancelled) == (0, 1)


async def test_one_connection_carries_request_after_request():
    worker = Worker(FakeEngine())
    app, clients = worker.app, set()

    async def noting(scope, receive, send):
        clients.add(scope.get("client"))
        await app(scope, receive, send)

    worker.app = noting
    async with served(worker) as there, AsyncClient(there.url) as client:
        for task in ("sentiment", "chat") * 5:
            assert [event async for event in client.execute(EngineRequest("r1", task, "hi"))]
            assert [event async for event in client.stream(Request("hi", task))]
    assert len(clients - {None}) == 1


async def test_any_number_of_requests_can_be_in_flight_at_once():
    release = asyncio.Event()
    engine = FakeEngine(gate=release)
    async with served(Worker(engine)) as there, AsyncClient(there.url) as client:
        streams = [client.execute(EngineRequest(f"r{n}", "chat", "hi")) for n in range(150)]
        assert {type(event) for event in await asyncio.gather(*map(anext, streams))} == {AnswerStart}
        assert await asyncio.gather(*map(anext, streams)) == [TextDelta("你", (0,))] * 150
        assert engine.open_streams == 150
        release.set()
        for stream in streams:
            assert [type(event) async for event in stream] == [TextDelta, Answer]


@asynccontextmanager
async def answering(reply: bytes, *, hangs_up: bool = True) -> AsyncIterator[AsyncClient]:
    """A client of somebody who sends `reply` whatever is asked, and then leaves, or says nothing more."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply)
        if not hangs_up:
            await reader.read()  # until the other side leaves
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, AsyncClient(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as client:
        yield client


def http(body: bytes, *, status: str = "200 OK", length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return f"HTTP/1.1 {status}\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n".encode() + body


# What comes, and what that is to one who wants a whole reply and to one who wants a stream.
FOREIGN = {
    "garbage": (b"\x00\x01\x02", BadReply, BadReply),
    "nothing": (b"", ConnectionLost, ConnectionLost),
    "html": (http(b"<html>hello</html>"), BadReply, ConnectionLost),
    "other json": (http(b"[1, 2]"), BadReply, ConnectionLost),
    "bad gateway": (http(b"<html>bad gateway</html>", status="502 Bad Gateway"), BadReply, BadReply),
    "redirect": (http(b"", status="302 Found\r\nLocation: http://127.0.0.1:1/"), BadReply, BadReply),
    "cut off": (http(b'{"request_id": "', length=100), ConnectionLost, ConnectionLost),
    "cut off in a refusal": (
        http(b'{"error": {', status="503 Service Unavailable", length=100),
        ConnectionLost,
        ConnectionLost,
    ),
    "damaged event": (http(b"event: token\ndata: {\n\nevent: piece\ndata: {\n\n"), BadReply, BadReply),
    "event cut in half": (http(b'event: token\ndata: {"index": 0, "te'), BadReply, ConnectionLost),
    "endless line": (http(b"data: " + b"x" * (MAX_EVENT_BYTES + 10)), BadReply, BadReply),
    "no end": (http(b""), BadReply, ConnectionLost),
}


@pytest.mark.parametrize(("reply", "whole", "stream"), FOREIGN.values(), ids=FOREIGN.keys())
async def test_a_foreign_answer_and_a_broken_connection_are_different_errors(reply, whole, stream):
    async with answering(reply) as client:
        streams = (client.stream(Request("hi")), client.execute(EngineRequest("r1", "chat", "hi")))
        asked = [
            (client.run(Request("hi")), whole),
            (client.capabilities(), whole),
            *((anext(s), stream) for s in streams),
        ]
        for ask, kind in asked:
            with pytest.raises(kind, match="curl http"):
                await ask


async def test_a_record_that_is_nested_without_end_is_not_ours():
    async with answering(http(b"[" * 200_000)) as client:
        with pytest.raises(BadReply):
            await client.health()


BEGUN = event_frame(TextDelta("a", index=0)) + engine_frame(TextDelta("a", (5,)))


@pytest.mark.parametrize(
    ("reply", "message"),
    [(http(BEGUN), "in the middle"), (http(BEGUN, length=1000), "no answer")],
    ids=["ends", "breaks"],
)
async def test_a_stream_that_stops_without_its_last_event_is_a_lost_connection(reply, message):
    async with answering(reply) as client:
        events = client.stream(Request("hi"))
        assert await anext(events) == TextDelta("a", index=0)
        with pytest.raises(ConnectionLost, match=message):
            await anext(events)
        pieces = client.execute(EngineRequest("r1", "chat", "hi"))
        assert await anext(pieces) == TextDelta("a", (5,))
        with pytest.raises(ConnectionLost, match=message):
            await anext(pieces)


async def test_what_comes_after_the_last_event_is_waited_for_only_a_moment():
    last = engine_frame(ANSWER)
    async with answering(http(last, length=10_000), hangs_up=False) as client:
        events = [event async for event in client.execute(EngineRequest("r1", "chat", "hi"))]
    assert [type(event) for event in events] == [Answer]


async def test_a_proxy_of_the_environment_is_not_used(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    async with served(Worker(FakeEngine())) as there, AsyncClient(there.url) as client:
        assert (await client.health())["state"] == "ready"


STREAM = b": hello\n\nevent: token\ndata: {}\n\nevent:done\r\ndata:1\r\ndata: 2\r\n\r\nretry: 5\nid: 3\n\ndata: x\n\nevent: lost\ndata: y"


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_events_are_read_however_the_bytes_are_cut(cuts):
    reader = FrameReader()
    places = [0, *sorted(cuts), len(STREAM)]
    chunks = [STREAM[start:end] for start, end in pairwise(places)]
    assert [frame for chunk in chunks for frame in reader.feed(chunk)] == [
        ("token", b"{}"),
        ("done", b"1\n2"),
        ("message", b"x"),
    ]


@given(st.lists(st.binary(max_size=40), max_size=10))
def test_no_bytes_upset_the_reader(chunks):
    reader = FrameReader()
    for chunk in chunks:
        for name, data in reader.feed(chunk):
            assert isinstance(name, str) and isinstance(data, bytes)


def test_an_event_is_bounded_whether_in_one_line_or_in_many():
    for line in (b"x" * 1000, b"data: x\n" * 100):
        reader = FrameReader()
        with pytest.raises(ValueError, match="more than"):
            for _ in range(MAX_EVENT_BYTES):
                list(reader.feed(line))


def test_many_small_events_are_not_one_large_one():
    reader = FrameReader()
    line = b"data: " + b"x" * 1000 + b"\n\n"
    assert sum(len(list(reader.feed(line))) for _ in range(2 * MAX_EVENT_BYTES // 1000)) == 2 * MAX_EVENT_BYTES // 1000
