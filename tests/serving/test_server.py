import asyncio
import json
import signal
import socket

import pytest
from starlette.responses import StreamingResponse
from starlette.routing import Route

from qwen_aio.errors import EngineStopped, InvalidModel, InvalidSettings
from qwen_aio.serving.transport.server import bind, bind_first_free, run_server
from tests.fakes import FakeEngine
from tests.served import Served, WatchedEngine, Worker, served


async def get(there: Served, path: str) -> bytes:
    """The whole reply to a GET, on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", there.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    try:
        return await reader.read()
    finally:
        writer.close()


async def post(there: Served, *, close: bool = False, **body) -> asyncio.StreamReader:
    """A run whose reply is still to be read."""
    reader, writer = await asyncio.open_connection("127.0.0.1", there.port)
    there.connections.append(writer)
    content = json.dumps({"text": "hi", "mode": "chat"} | body).encode()
    head = f"POST /v1/run HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n"
    writer.write(f"{head}{'Connection: close' if close else 'X: y'}\r\n\r\n".encode() + content)
    return reader


async def begun_stream(there: Served) -> asyncio.StreamReader:
    """A stream that has given its first token and waits for the second."""
    reader = await post(there, stream=True)
    await reader.readuntil(b"event: token\n")
    await there.worker.engine.begun.wait()
    return reader


async def told_to_end(there: Served) -> None:
    """SIGTERM, and the server has taken notice."""
    signal.raise_signal(signal.SIGTERM)
    while not (await get(there, "/readyz")).startswith(b"HTTP/1.1 503"):
        pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_an_idle_server(number):
    before = signal.getsignal(number)
    async with served(Worker(FakeEngine())) as there:
        assert (await get(there, "/livez")).startswith(b"HTTP/1.1 200")
        signal.raise_signal(number)
        assert await there.serving == 0
        with pytest.raises(ConnectionError):
            await get(there, "/livez")
    assert signal.getsignal(number) == before


async def test_while_draining_requests_in_flight_finish_and_others_are_refused():
    release = asyncio.Event()
    async with served(Worker(WatchedEngine(gate=release))) as there:
        stream = await begun_stream(there)
        await told_to_end(there)
        refused = await (await post(there, close=True)).read()
        assert refused.startswith(b"HTTP/1.1 503") and b'"code":"draining"' in refused and b"retry-after: " in refused
        assert (await get(there, "/readyz")).startswith(b"HTTP/1.1 503")
        assert b'"state": "draining"' in await get(there, "/health")
        assert (await get(there, "/livez")).startswith(b"HTTP/1.1 200")
        release.set()
        assert b"event: done\n" in await stream.read()
        assert await there.serving == 0


async def test_when_the_grace_is_over_the_rest_gets_an_error():
    engine = WatchedEngine(gate=asyncio.Event())
    async with served(Worker(engine), grace_s=0.01) as there:
        stream = await begun_stream(there)
        engine.begun.clear()
        run = await post(there, close=True)
        await engine.begun.wait()
        signal.raise_signal(signal.SIGTERM)
        ending = await stream.read()
        assert b"event: error\n" in ending and b'"code":"draining"' in ending
        assert b"event: done" not in ending
        assert (await run.read()).startswith(b"HTTP/1.1 503")
        assert await there.serving == 0
    assert engine.open_streams == 0


async def test_a_second_signal_ends_everything_at_once():
    engine = WatchedEngine(gate=asyncio.Event())
    async with served(Worker(engine), grace_s=3600) as there:
        stream = await begun_stream(there)
        await told_to_end(there)
        assert (await get(there, "/readyz")).startswith(b"HTTP/1.1 503")
        signal.raise_signal(signal.SIGINT)
        assert await there.serving == 128 + signal.SIGINT
        assert b"event: error\n" in await stream.read()
    assert engine.open_streams == 0


async def test_when_the_engine_fails_requests_in_flight_get_the_error_and_the_failure_is_raised():
    engine = WatchedEngine(gate=asyncio.Event())
    async with served(Worker(engine)) as there:
        stream = await begun_stream(there)
        there.failure.set_exception(ZeroDivisionError("SECRET"))
        ending = await stream.read()
        assert b'"code":"engine_stopped"' in ending and b"SECRET" not in ending
        with pytest.raises(ZeroDivisionError):
            await there.serving
    assert there.worker.gate.state == "failed"


async def test_an_engine_that_fails_while_draining_is_a_failure():
    async with served(Worker(WatchedEngine(gate=asyncio.Event()))) as there:
        await begun_stream(there)
        await told_to_end(there)
        assert (await get(there, "/readyz")).startswith(b"HTTP/1.1 503")
        there.failure.set_exception(EngineStopped("gone"))
        with pytest.raises(EngineStopped):
            await there.serving


async def test_a_worker_that_cannot_load_says_why():
    async with served(Worker(FakeEngine(), is_open=False)) as there:
        assert (await get(there, "/readyz")).startswith(b"HTTP/1.1 503")
        there.failure.set_exception(InvalidModel("no weights at /x"))
        with pytest.raises(InvalidModel, match="no weights"):
            await there.serving


async def test_a_signal_while_loading_ends_the_loading():
    async with served(Worker(FakeEngine(), is_open=False)) as there:
        await get(there, "/livez")
        signal.raise_signal(signal.SIGTERM)
        assert await there.serving == 0


async def test_the_life_ends_after_the_last_request():
    release = asyncio.Event()
    worker = Worker(WatchedEngine(gate=release))
    seen_at_the_end = []

    async def live() -> None:
        try:
            await asyncio.Future()
        finally:
            seen_at_the_end.append(worker.gate.in_flight)

    with bind("127.0.0.1", 0) as sock:
        serving = asyncio.create_task(run_server(worker.app, sock=sock, gate=worker.gate, life=live))
        there = Served(worker, sock.getsockname()[1], serving, asyncio.Future())
        stream = await begun_stream(there)
        await told_to_end(there)
        assert (await get(there, "/readyz")).startswith(b"HTTP/1.1 503")
        assert seen_at_the_end == []
        release.set()
        await stream.read()
        assert await serving == 0
    assert seen_at_the_end == [0]


async def test_an_open_page_does_not_hold_the_process():
    opened = asyncio.Event()

    async def endless():
        opened.set()
        yield b": hello\n\n"
        await asyncio.Future()

    async def page(request):
        return StreamingResponse(endless())

    worker = Worker(FakeEngine())
    worker.app.router.routes.append(Route("/events", page))
    async with served(worker) as there:
        _, writer = await asyncio.open_connection("127.0.0.1", there.port)
        writer.write(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await opened.wait()
        signal.raise_signal(signal.SIGTERM)
        assert await there.serving == 0
        writer.close()


# ---- ports ----


def test_a_port_in_use_is_reported():
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InvalidSettings, match=f"127.0.0.1:{port}: it is in use.*--port"):
            bind("127.0.0.1", port)
        with bind_first_free("127.0.0.1", port) as next_one:
            assert next_one.getsockname()[1] > port


def test_an_address_that_is_not_ours_is_reported_at_once():
    for take in (bind, bind_first_free):
        for host, shown in (("192.0.2.1", r"192\.0\.2\.1:7861"), ("2001:db8::1", r"\[2001:db8::1\]:7861")):
            with pytest.raises(InvalidSettings, match=rf"{shown}.*another with --host"):
                take(host, 7861)


def test_a_port_is_free_again_after_use():
    with bind("127.0.0.1", 0) as sock:
        port = sock.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            accepted, _ = sock.accept()
            accepted.close()
    bind("127.0.0.1", port).close()


def test_small_replies_leave_at_once():
    # asyncio sets TCP_NODELAY only on sockets that say they are TCP; without it every reply waits 40 ms.
    with bind("127.0.0.1", 0) as sock:
        assert sock.proto == socket.IPPROTO_TCP
