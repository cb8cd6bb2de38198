import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_aio.client import MAX_EVENT_BYTES, Client, FrameReader
from qwen_aio.core import Decided, Done, Message, Request, SamplingWish, Token
from qwen_aio.errors import EngineStopped, InvalidRequest, NotReady, QueueFull, ServerUnreachable, UnknownTask
from tests.fakes import FakeEngine, user_text
from tests.served import TASKS, WatchedEngine, Worker, served

STORY = "刚收到货,包装完好,但颜色和图片不太一样,有点小失望"


async def test_a_result_comes_through_as_it_is_in_process():
    engine = FakeEngine(pieces=("抱歉", "。"))
    async with served(Worker(engine)) as there, Client(there.url + "/") as client:
        result = await client.run(Request(STORY, reply=True, request_id="r1"))
    assert (result.request_id, result.mode, result.decision.label) == ("r1", "sentiment", "negative")
    assert result.merged_line == '【😔 LLM 情感判断:负面|高置信】→ "抱歉。"'
    assert result.decision.usage.cached_tokens == 71


async def test_a_stream_comes_through_event_by_event():
    async with served(Worker(FakeEngine(pieces=("a", "", "b\n\ndata: x")))) as there, Client(there.url) as client:
        events = [event async for event in client.stream(Request(STORY, reply=True))]
    assert [type(event) for event in events] == [Decided, Token, Token, Done]
    assert events[1:3] == [Token(0, "a"), Token(1, "b\n\ndata: x")]
    assert events[-1].result.answer.text == "ab\n\ndata: x"


async def test_history_and_wishes_reach_the_engine():
    engine = FakeEngine()
    history = (Message("user", "x"), Message("assistant", "y"))
    async with served(Worker(engine)) as there, Client(there.url) as client:
        await client.run(
            Request("hi", "chat", history=history, sampling=SamplingWish(max_tokens=3, stop=("。",), seed=5))
        )
    assert (engine.samplings[0].max_tokens, engine.samplings[0].stop, engine.samplings[0].seed) == (3, ("。",), 5)
    assert len(engine.prompts[0].turns) == 1
    assert user_text(engine.prompts[0]) == "hi"


async def test_a_closed_stream_ends_the_work():
    engine = WatchedEngine(gate=asyncio.Event())
    async with served(Worker(engine)) as there, Client(there.url) as client:
        events = client.stream(Request("hi", "chat"))
        assert await anext(events) == Token(0, "你")
        await engine.begun.wait()
        await events.aclose()
        await engine.freed.wait()
        await there.worker.door.wait_empty()
    assert (engine.open_streams, engine.cancelled) == (0, 1)


async def test_a_cancelled_run_ends_the_work():
    engine = WatchedEngine(gate=asyncio.Event())
    async with served(Worker(engine)) as there, Client(there.url) as client:
        running = asyncio.create_task(client.run(Request("hi", "chat")))
        await engine.begun.wait()
        running.cancel()
        await engine.freed.wait()
        await there.worker.door.wait_empty()
    assert engine.open_streams == 0


@pytest.mark.parametrize("reply", [False, True])
async def test_an_error_is_raised_by_its_own_class(reply):
    async with (
        served(Worker(FakeEngine(error=QueueFull("full up", retry_after_s=4)))) as there,
        Client(there.url) as client,
    ):
        with pytest.raises(QueueFull, match="full up") as caught:
            await client.run(Request("hi", reply=reply))
    assert caught.value.retry_after_s == 4


async def test_an_error_inside_a_stream_is_raised_after_what_came_before():
    engine = FakeEngine(pieces=("a", "b"), error=EngineStopped("gone"), error_after=1)
    async with served(Worker(engine)) as there, Client(there.url) as client:
        events = client.stream(Request("hi", "chat"))
        assert await anext(events) == Token(0, "a")
        with pytest.raises(EngineStopped, match="gone"):
            await anext(events)


async def test_mistakes_are_told_by_name():
    async with served(Worker(FakeEngine())) as there, Client(there.url) as client:
        with pytest.raises(UnknownTask) as caught:
            await client.run(Request("hi", "poetry"))
        assert caught.value.param == "mode"
        with pytest.raises(InvalidRequest):
            await anext(client.stream(Request(" ")))


async def test_tasks_and_health():
    async with served(Worker(FakeEngine())) as there, Client(there.url) as client:
        assert {name: task.labels for name, task in (await client.tasks()).items()} == {
            name: task.labels for name, task in TASKS.items()
        }
        assert (await client.health())["state"] == "ready"


async def test_a_server_that_is_not_ready_can_be_asked_how_it_is():
    async with served(Worker(FakeEngine(), is_open=False)) as there, Client(there.url) as client:
        assert (await client.health())["state"] == "starting"
        with pytest.raises(NotReady):
            await client.tasks()
        with pytest.raises(NotReady):
            await client.run(Request("hi"))


async def test_nobody_there_is_told_with_the_address_and_how_to_check():
    async with served(Worker(FakeEngine())) as there:
        port = there.port
    async with Client(f"http://127.0.0.1:{port}") as client:
        for ask in (client.run(Request("hi")), client.tasks(), client.health(), anext(client.stream(Request("hi")))):
            with pytest.raises(
                ServerUnreachable, match=rf"http://127.0.0.1:{port}.*curl http://127.0.0.1:{port}/health"
            ):
                await ask


@pytest.mark.parametrize("url", ["not an address", "http://", "ftp://127.0.0.1/"])
async def test_an_address_that_is_none_is_told(url):
    async with Client(url) as client:
        with pytest.raises(ServerUnreachable):
            await client.tasks()


@asynccontextmanager
async def answering(reply: bytes) -> AsyncIterator[Client]:
    """A client of somebody who sends `reply` whatever is asked, and hangs up."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, Client(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as client:
        yield client


def http(body: bytes, *, status: str = "200 OK", length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return f"HTTP/1.1 {status}\r\nContent-Length: {size}\r\n\r\n".encode() + body


FOREIGN = {
    "garbage": b"\x00\x01\x02",
    "nothing": b"",
    "html": http(b"<html>hello</html>"),
    "other json": http(b"[1, 2]"),
    "bad gateway": http(b"<html>bad gateway</html>", status="502 Bad Gateway"),
    "redirect": http(b"", status="302 Found\r\nLocation: http://127.0.0.1:1/"),
    "cut off": http(b'{"request_id": "', length=100),
    "damaged event": http(b"event: token\ndata: {\n\n"),
    "event cut in half": http(b'event: token\ndata: {"index": 0, "te'),
    "endless line": http(b"data: " + b"x" * (MAX_EVENT_BYTES + 10)),
    "no end": http(b""),
}


@pytest.mark.parametrize("reply", FOREIGN.values(), ids=FOREIGN.keys())
async def test_an_answer_that_is_not_ours_is_told(reply):
    async with answering(reply) as client:
        for ask in (client.run(Request("hi")), anext(client.stream(Request("hi"))), client.tasks()):
            with pytest.raises(ServerUnreachable, match="curl http"):
                await ask


async def test_a_stream_that_just_stops_is_an_error():
    async with answering(http(b'event: token\ndata: {"index": 0, "text": "a"}\n\n')) as client:
        events = client.stream(Request("hi"))
        assert await anext(events) == Token(0, "a")
        with pytest.raises(ServerUnreachable, match="in the middle"):
            await anext(events)


async def test_a_proxy_of_the_environment_is_not_used(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    async with served(Worker(FakeEngine())) as there, Client(there.url) as client:
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
