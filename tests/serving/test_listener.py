"""As many connections as there is room for, and an end to each that goes on waiting (real sockets)."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import psutil
import pytest
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from qwen_aio.serving.transport.connection import Patience
from qwen_aio.serving.transport.listener import Room
from qwen_aio.serving.transport.server import bind, run_server
from tests.fakes import FakeEngine
from tests.served import Served, Worker, served

LARGE = 50_000_000  # more than the system's buffers hold


@dataclass
class RawClient:
    """One connection, and what has come over it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def ask(self, path: str, *, method: str = "GET", close: bool = False) -> tuple[int, bytes]:
        """Status and body of the reply."""
        connection = "close" if close else "keep-alive"
        self.writer.write(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: {connection}\r\n\r\n".encode())
        return await self.reply()

    async def reply(self) -> tuple[int, bytes]:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length: ")[2].split()[0])
        return int(head.split()[1]), await self.reader.readexactly(length)

    async def refused(self, code: str) -> None:
        """The reply is a whole refusal, and the end of the connection."""
        reply = (await self.reader.read()).decode()
        head, _, body = reply.partition("\r\n\r\n")
        error = json.loads(body)["error"]
        assert error["code"] == code
        assert f"x-request-id: {error['request_id']}" in head.lower()
        assert "connection: close" in head.lower()
        if head.split()[1] == "503":
            assert "retry-after: 1" in head.lower()


async def connected(there: Served) -> RawClient:
    reader, writer = await asyncio.open_connection("127.0.0.1", there.port)
    there.connections.append(writer)
    return RawClient(reader, writer)


def few(most: int, extra: int = 1, **seconds: float):
    return served(Worker(FakeEngine()), room=Room(most, extra), patience=Patience(**seconds))


# ---- the bound ----


async def test_beyond_the_bound_a_request_is_refused_and_a_probe_is_answered():
    async with few(2) as there:
        first, _ = await connected(there), await connected(there)
        for path in ("/health", "/v1/tasks", "/", "/nowhere"):
            extra = await connected(there)
            extra.writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            await extra.refused("too_many_connections")
        for path in ("/livez", "/readyz"):
            extra = await connected(there)
            assert (await extra.ask(path))[0] == 200
            assert await extra.reader.read() == b""
        assert (await first.ask("/health"))[0] == 200


async def test_a_refused_sender_gets_the_error_after_its_whole_body():
    async with few(1) as there:
        await connected(there)
        extra = await connected(there)
        head = b"POST /v1/run HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 900000\r\n\r\n"
        extra.writer.write(head)
        for _ in range(9):
            extra.writer.write(b" " * 100_000)
            await extra.writer.drain()
        await extra.refused("too_many_connections")


async def test_a_client_that_leaves_makes_room():
    async with few(1) as there:
        first = await connected(there)
        assert (await (await connected(there)).ask("/health", close=True))[0] == 503
        first.writer.close()
        while (await (await connected(there)).ask("/health", close=True))[0] == 503:
            pass


async def test_idle_between_two_requests_makes_room():
    async with few(2) as there:
        silent, idle = await connected(there), await connected(there)
        assert (await idle.ask("/health"))[0] == 200
        assert (await (await connected(there)).ask("/health"))[0] == 200
        assert await idle.reader.read() == b""
        assert (await silent.ask("/health"))[0] == 200


async def test_an_extra_client_that_sends_nothing_gives_way_to_others():
    async with few(1, extra=1) as there:
        await connected(there)
        silent = await connected(there)
        assert (await (await connected(there)).ask("/livez"))[0] == 200
        await silent.refused("too_many_connections")


async def test_a_probe_is_answered_after_a_flood_that_came_at_once():
    async with few(2, extra=3) as there:
        with ExitStack() as held:  # the server's turn comes when all of them are there
            address = ("127.0.0.1", there.port)
            flood = [held.enter_context(socket.create_connection(address, timeout=30)) for _ in range(100)]
            assert (await (await connected(there)).ask("/livez"))[0] == 200
            replies = [await asyncio.to_thread(connection.recv, 65536) for connection in flood[2:-2]]
    assert {reply.split(b" ")[1] for reply in replies} == {b"503"}


@pytest.mark.parametrize("path", ["/v1/run", "/livez"])
async def test_a_probe_is_answered_behind_bodies_that_never_come(path):
    async with few(2, extra=2) as there:
        for _ in range(8):
            each = await connected(there)
            each.writer.write(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{{".encode())
        assert (await (await connected(there)).ask("/livez"))[0] == 200


async def test_without_any_place_a_connection_is_refused_unheard():
    async with few(1, extra=0) as there:
        await connected(there)
        await (await connected(there)).refused("too_many_connections")


async def test_a_flood_is_one_line_a_second(caplog):
    caplog.set_level(logging.INFO)
    async with few(1) as there:
        started_at = asyncio.get_running_loop().time()
        await connected(there)
        for _ in range(200):
            await (await connected(there)).ask("/health")
        took_s = asyncio.get_running_loop().time() - started_at
    lines = [record for record in caplog.records if record.name == "qwen_aio.serving.transport.listener"]
    assert 1 <= len(lines) <= 1 + took_s
    assert "open=1 refused=1" in lines[0].getMessage()


# ---- files ----


@pytest.mark.parametrize(
    ("soft", "hard", "raised", "served"),
    [
        (64, 64, 64, 21),
        (64, 1024, 1024, 501),
        (64, 4500, 4022, 2000),
        (4500, 4500, 4500, 2000),
        (25, 25, 0, 0),
    ],
)
def test_room_is_what_the_limit_of_open_files_leaves(soft, hard, raised, served):
    code = (
        "import resource, sys; from qwen_aio.serving.transport.listener import Room; limit = resource.RLIMIT_NOFILE; "
        f"resource.setrlimit(limit, ({soft}, {hard})); room = Room.of_process(); "
        "print(resource.getrlimit(limit)[0], room.served)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if served:
        assert ended.stdout.split() == [str(raised), str(served)], ended.stderr
    else:
        assert "may open 25 files and needs" in ended.stderr and "ulimit -n" in ended.stderr


class Exhausted(socket.socket):
    """A listening socket in a process that may open no more files, until `is_over`."""

    num_tries = 0
    is_over = False

    def accept(self):
        self.num_tries += 1
        if self.is_over:
            return super().accept()
        raise OSError(errno.EMFILE, "Too many open files")


async def test_while_no_file_can_be_opened_the_log_is_quiet_and_afterwards_all_is_well(caplog):
    worker = Worker(FakeEngine())
    sock = Exhausted(fileno=bind("127.0.0.1", 0).detach())
    serving = asyncio.ensure_future(run_server(worker.app, sock=sock, gate=worker.gate, life=asyncio.Event().wait))
    try:
        first = await connected(Served(worker, sock.getsockname()[1], serving, asyncio.Future()))
        asked = asyncio.ensure_future(first.ask("/health"))
        while sock.num_tries < 5:
            await asyncio.wait({asked}, timeout=0.01)
        assert len(caplog.records) <= 1 + sock.num_tries // 10  # they are at least a tenth of a second apart
        assert all(record.exc_info is None for record in caplog.records)
        sock.is_over = True
        assert (await asked)[0] == 200
    finally:
        serving.cancel()
        await asyncio.wait({serving})


class Broken(socket.socket):
    """A listening socket with an error that nobody foresaw."""

    def accept(self):
        raise ZeroDivisionError


async def test_a_server_that_can_accept_no_more_ends():
    worker = Worker(FakeEngine())
    sock = Broken(fileno=bind("127.0.0.1", 0).detach())
    serving = asyncio.ensure_future(run_server(worker.app, sock=sock, gate=worker.gate, life=asyncio.Event().wait))
    with pytest.raises(ZeroDivisionError):
        _, writer = await asyncio.open_connection(*sock.getsockname())
        await serving
    writer.close()


# ---- waiting for the other side ----


@pytest.mark.parametrize(
    "method", ["GET / HTTP/1.1\r\nHost: ", "GET /", "POST /v1/run HTTP/1.1\r\nHost: localhost\r\n"]
)
async def test_headers_that_come_byte_by_byte_are_not_waited_for(method):
    async with few(10, headers_s=0.1) as there:
        slow = await connected(there)
        slow.writer.write(method.encode())
        refused = asyncio.ensure_future(slow.refused("headers_too_slow"))
        while not refused.done():
            slow.writer.write(b"x")
            await asyncio.wait({refused}, timeout=0.01)
        await refused


async def test_a_second_request_has_no_more_time_than_the_first():
    async with few(10, headers_s=0.1) as there:
        slow = await connected(there)
        assert (await slow.ask("/health"))[0] == 200
        slow.writer.write(b"GET")
        await slow.refused("headers_too_slow")


async def test_a_client_that_never_asks_is_hung_up_on():
    async with few(10, headers_s=0.01) as there:
        assert await (await connected(there)).reader.read() == b""


async def test_a_client_that_asks_no_more_is_hung_up_on_later():
    async with few(10, idle_s=0) as there:
        idle = await connected(there)
        assert (await idle.ask("/health"))[0] == 200
        assert await idle.reader.read() == b""


async def test_a_client_that_is_answered_before_its_body_is_not_waited_for_for_ever():
    async with few(10, headers_s=0.1) as there:
        early = await connected(there)
        early.writer.write(b"POST /v1/run HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 3\r\n\r\n")
        assert (await early.reply())[0] == 400
        early.writer.write(b"abc")
        assert await early.reader.read() == b""


async def test_headers_in_time_leave_the_body_and_the_reply_their_own():
    async with few(10, headers_s=0.1) as there:
        slow = await connected(there)
        slow.writer.write(
            b"POST /v1/run HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 40\r\n\r\n{"
        )
        silent = await connected(there)
        await silent.reader.read()  # younger, and hung up on
        slow.writer.write(b'"text": "hi", "mode": "chat"}'.ljust(39))
        assert (await slow.reply())[0] == 200


def num_sockets() -> int:
    """Open ones of this process."""
    return len(psutil.Process().net_connections("all"))


async def until(is_so: Callable[[], bool], *, there: Served) -> None:
    while not is_so():
        await asyncio.wait({there.serving}, timeout=0.001)


async def _stream(_):
    async def chunks():
        for _ in range(LARGE // 1000):
            yield b"x" * 1000

    return StreamingResponse(chunks())


async def _whole(_):
    return Response(b"x" * LARGE)


@pytest.mark.parametrize("endpoint", [_stream, _whole])
@pytest.mark.parametrize("connection", ["close", "keep-alive"])
async def test_a_reply_that_no_client_reads_is_dropped(endpoint, connection):
    worker = Worker(FakeEngine())
    worker.app.router.routes.append(Route("/large", endpoint))
    async with served(worker, patience=Patience(reading_s=0.05)) as there:
        with socket.create_connection(("127.0.0.1", there.port)) as lazy:
            before = num_sockets()  # the server's end is not accepted yet
            lazy.sendall(f"GET /large HTTP/1.1\r\nHost: localhost\r\nConnection: {connection}\r\n\r\n".encode())
            await until(lambda: num_sockets() > before, there=there)
            await until(lambda: num_sockets() == before, there=there)


async def test_a_large_reply_that_is_read_comes_whole():
    worker = Worker(FakeEngine())
    worker.app.router.routes.append(Route("/large", _whole))
    async with served(worker, patience=Patience(reading_s=5)) as there:
        reader = await connected(there)
        for _ in range(2):
            assert await reader.ask("/large") == (200, b"x" * LARGE)
