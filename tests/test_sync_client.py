"""The blocking client: the same results as the async one, from scripts, threads and notebooks.

The worker is on the test's own loop, so everything that blocks is in a thread.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from qwen_aio import AsyncClient, Client, Message, Request, SamplingWish
from qwen_aio.errors import ConnectionLost, ServerUnreachable, UnknownTask
from qwen_aio.result import Decided, Done, TextDelta
from tests.served import WatchedEngine, Worker, served

REVIEW = Request("有点小失望", reply=True, sampling=SamplingWish(seed=1))
TALE = Request("讲个故事", mode="chat")


@dataclass
class Site:
    url: str
    engine: WatchedEngine

    def open_gate(self) -> None:
        assert self.engine.gate is not None
        self.engine.gate.set()


@asynccontextmanager
async def site() -> AsyncIterator[Site]:
    engine = WatchedEngine(pieces=("抱歉", "。"), gate=asyncio.Event())
    async with served(Worker(engine)) as there:
        yield Site(there.url, engine)


async def test_results_and_streams_are_those_of_the_async_client():
    async with site() as there, AsyncClient(there.url) as other:
        there.open_gate()
        expected, events = await other.run(REVIEW), [event async for event in other.stream(REVIEW)]

        def ask() -> None:
            with Client(there.url) as client:
                found = client.run(REVIEW)
                assert (found.decision.label, found.answer.text) == (expected.decision.label, expected.answer.text)
                assert [type(event) for event in client.stream(REVIEW)] == [type(event) for event in events]
                assert client.capabilities().tasks.keys() == {"chat", "safety", "sentiment", "summarize"}
                assert client.health()["state"] == "ready"
                with pytest.raises(UnknownTask):
                    client.run(Request("a", mode="poem"))

        await asyncio.to_thread(ask)


async def test_it_works_where_a_loop_runs_already():
    async with site() as there:
        there.open_gate()

        async def cell() -> str:
            with Client(there.url) as client:  # blocks its loop, as a cell of a notebook does
                return client.run(REVIEW).decision.label

        assert await asyncio.to_thread(asyncio.run, cell()) == "negative"


async def test_a_stream_that_is_left_ends_the_work():
    async with site() as there:

        def leave() -> None:
            for event in client.stream(TALE):
                assert isinstance(event, TextDelta)
                break

        client = Client(there.url)
        await asyncio.to_thread(leave)
        await there.engine.freed.wait()
        assert there.engine.open_streams == 0
        await asyncio.to_thread(client.close)


async def test_a_forgotten_stream_ends_the_work_whichever_thread_collects_it():
    async with site() as there:
        client = Client(there.url)

        def forget() -> None:
            events = [client.stream(TALE)]
            next(events[0])
            events.append(events)  # a cycle, so that only the collector finds it

        async def collect() -> None:
            gc.collect()

        gc.disable()
        try:
            await asyncio.to_thread(forget)
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(collect(), client._running_loop()))
        finally:
            gc.enable()
        await there.engine.freed.wait()
        await asyncio.to_thread(client.close)


async def test_threads_share_a_client():
    async with site() as there:
        there.open_gate()

        def ask() -> set[str]:
            with Client(there.url) as client, ThreadPoolExecutor(8) as pool:
                return set(pool.map(lambda _: client.run(REVIEW).decision.label, range(40)))

        assert await asyncio.to_thread(ask) == {"negative"}


async def test_closing_ends_what_waits_and_leaves_no_thread():
    async with site() as there:
        client = Client(there.url)
        events = client.stream(TALE)
        await asyncio.to_thread(next, events)
        await there.engine.begun.wait()
        there.engine.begun.clear()
        waiting = asyncio.ensure_future(asyncio.to_thread(client.run, Request("a", mode="sentiment")))
        await there.engine.begun.wait()
        await asyncio.to_thread(client.close)
        with pytest.raises(ConnectionLost):
            await waiting
        events.close()  # closed already
        client.close()
        assert "qwen_aio client" not in {thread.name for thread in threading.enumerate()}
        there.open_gate()

        def start_anew() -> str:
            with client:
                return client.run(REVIEW).decision.label

        assert await asyncio.to_thread(start_anew) == "negative"


def test_a_request_that_meets_a_close_ends_whichever_comes_first():
    def ask(client: Client) -> str:
        try:
            client.run(REVIEW)
        except (ConnectionLost, ServerUnreachable) as exc:
            return type(exc).__name__
        return "answered by nobody"

    client = Client("http://127.0.0.1:9")
    with ThreadPoolExecutor(8) as pool:
        found = [pool.submit(ask, client) for _ in range(400)]
        while not all(each.done() for each in found):
            client.close()
    client.close()
    assert {each.result() for each in found} <= {"ConnectionLost", "ServerUnreachable"}


def test_no_server_is_an_error_of_its_own_class():
    with Client("http://127.0.0.1:9") as client, pytest.raises(ServerUnreachable, match=r"127\.0\.0\.1:9"):
        client.run(REVIEW)


async def test_a_conversation_goes_on():
    async with site() as there:
        there.open_gate()
        history = (Message("user", "你好"), Message("assistant", "你好！"))
        with Client(there.url) as client:
            request = Request("再见", mode="chat", reply=True, history=history)
            first, *_, last = await asyncio.to_thread(lambda: list(client.stream(request)))
    assert isinstance(first, Decided) and isinstance(last, Done)
    assert last.result.answer.text == "抱歉。"
