"""What llhttp leaves to us: bounds on headers and pipelined requests, trailers, upgrades, replies on their way."""

import asyncio
import gc
import json

import pytest
from starlette.responses import JSONResponse
from starlette.routing import Route

from qwen_aio.serving.transport.connection import MAX_INCOMPLETE_BYTES, MAX_PIPELINED, Connection
from tests.fakes import FakeEngine
from tests.served import Served, WatchedEngine, Worker, served

HEAD = b"Host: localhost\r\n"
LIVEZ = b"GET /livez HTTP/1.1\r\n" + HEAD + b"\r\n"


async def told(there: Served, request: bytes) -> bytes:
    """Everything until the server disconnects."""
    reader, writer = await asyncio.open_connection("127.0.0.1", there.port)
    there.connections.append(writer)
    writer.write(request)
    return await reader.read()


def connection_of(writer: asyncio.StreamWriter) -> Connection:
    """The server's side of it. Another test may have left connections of its own, so it is told by its address."""
    address = writer.get_extra_info("sockname")
    [connection] = [each for each in gc.get_objects() if type(each) is Connection and each.client == address]
    return connection


async def begun(there: Served) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]:
    """A connection whose request streams until the engine's gate opens, and its reply so far."""
    body = b'{"text": "hi", "mode": "chat", "stream": true}'
    run = b"POST /v1/run HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
    reader, writer = await asyncio.open_connection("127.0.0.1", there.port)
    there.connections.append(writer)
    writer.write(run + HEAD + b"\r\n" + body)
    return reader, writer, await reader.readuntil(b"event: token\n")


async def headers_of_request(request):
    return JSONResponse([[name.decode(), value.decode()] for name, value in request.headers.raw])


async def test_what_comes_behind_a_body_is_no_header():
    worker = Worker(FakeEngine())
    worker.app.router.routes.insert(0, Route("/headers", headers_of_request, methods=["POST"]))
    request = (
        b"POST /headers HTTP/1.1\r\nConnection: close\r\nContent-Type: application/json\r\n"
        + HEAD
        + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nHost: evil.com\r\nAuthorization: Bearer x\r\n\r\n"
    )
    async with served(worker) as there:
        reply = await told(there, request)
    assert reply.startswith(b"HTTP/1.1 200")
    names = [name for name, _ in json.loads(reply.partition(b"\r\n\r\n")[2])]
    assert sorted(names) == ["connection", "content-type", "host", "transfer-encoding"]


@pytest.mark.parametrize("begin", [b"GET /", b"GET / HTTP/1.1\r\nX: ", b"GET / HTTP/1.1\r\n" + HEAD])
async def test_headers_without_an_end_are_refused_soon(begin):
    line = b"x" * 1000 if not begin.endswith(b"\n") else b"X: %s\r\n" % (b"x" * 1000)
    async with served(Worker(FakeEngine())) as there:
        reader, writer = await asyncio.open_connection("127.0.0.1", there.port)
        there.connections.append(writer)
        writer.write(begin)
        reply = asyncio.ensure_future(reader.read(10_000))
        sent = 0
        while not reply.done() and sent < 100 * MAX_INCOMPLETE_BYTES:
            writer.write(line)
            sent += len(line)
            await asyncio.wait({reply}, timeout=0.001)
        assert (await reply).startswith(b"HTTP/1.1 400")
        assert b'"code":"invalid_request"' in await reply
    assert sent < 10 * MAX_INCOMPLETE_BYTES


async def test_requests_sent_at_once_are_answered_one_after_another():
    async with served(Worker(FakeEngine())) as there:
        closing = LIVEZ.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        reply = await told(there, LIVEZ * (MAX_PIPELINED - 1) + closing)
    assert reply.count(b"HTTP/1.1 200") == MAX_PIPELINED


async def test_more_than_a_few_at_once_are_not_kept():
    async with served(Worker(FakeEngine())) as there:
        reply = await told(there, LIVEZ * 2000)
        assert reply.count(b"HTTP/1.1 200") == MAX_PIPELINED + 1
        assert (await told(there, LIVEZ.replace(b"1.1", b"1.0"))).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("behind", [b"garbage\r\n\r\n", b"GET /livez HTTP/1.1\r\n\r\n"])
async def test_what_comes_behind_a_request_does_not_harm_its_reply(behind):
    release = asyncio.Event()
    async with served(Worker(WatchedEngine(gate=release))) as there:
        reader, writer, first = await begun(there)
        writer.write(behind)
        await asyncio.sleep(0)
        release.set()
        rest = await reader.read()
    assert first.startswith(b"HTTP/1.1 200")
    assert rest.endswith(b"\r\n0\r\n\r\n") and b"event: done\n" in rest
    assert b"HTTP/1.1" not in rest


async def test_headers_without_an_end_behind_a_request_take_no_memory_while_it_is_answered():
    release = asyncio.Event()
    async with served(Worker(WatchedEngine(gate=release))) as there:
        reader, writer, _ = await begun(there)
        connection = connection_of(writer)
        writer.write(b"GET / HTTP/1.1\r\n")
        line = b"X: %s\r\n" % (b"x" * 1000)
        for _ in range(20 * MAX_INCOMPLETE_BYTES // len(line)):
            writer.write(line)
            await writer.drain()
        assert (await told(there, LIVEZ.replace(b"1.1", b"1.0"))).startswith(b"HTTP/1.1 200")
        assert sum(len(value) for _, value in connection.headers) < 10 * MAX_INCOMPLETE_BYTES
        release.set()
        assert b"event: done\n" in await reader.read()


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket"])
async def test_an_offer_of_another_protocol_is_answered_in_this_one(protocol, caplog):
    offer = b"GET /livez HTTP/1.1\r\n" + HEAD + b"Connection: Upgrade\r\nUpgrade: %s\r\n\r\n" % protocol
    async with served(Worker(FakeEngine())) as there:
        reply = await told(there, offer)
    assert reply.startswith(b"HTTP/1.1 200") and b"connection: close" in reply
    assert not caplog.records
