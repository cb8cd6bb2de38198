"""The guard in processes of their own, since nothing takes it away: every way out, and every way that stays in."""

from __future__ import annotations

import asyncio
import http.client
import logging
import os
import socket
import threading
import urllib.request
from collections.abc import Callable
from contextlib import suppress

import aiohttp
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_aio.client.async_client import AsyncClient, AuditedResolver
from qwen_aio.config import Settings
from qwen_aio.egress.guard import MAX_LOGGED, MAX_SHOWN_CHARS, RESOLVED, EgressGuard, EgressRefused
from qwen_aio.errors import QwenAioError
from qwen_aio.startup.egress import egress_guard
from qwen_aio.startup.event_loop import AuditedLoop
from tests.own_process import in_own_process

FAR = "192.0.2.1"  # of no machine
FAR6 = "2001:db8::1"
NAME = "example.invalid"
LONG = ".".join(["x" * 60] * 20)
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop, "servers'": AuditedLoop}


def udp() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


SYNC: dict[str, Callable[[], object]] = {
    "connect": lambda: socket.socket().connect((FAR, 9)),
    "connect to a name": lambda: socket.socket().connect((NAME, 9)),
    "connect_ex": lambda: socket.socket().connect_ex((FAR, 9)),
    "connect over IPv6": lambda: socket.socket(socket.AF_INET6).connect((FAR6, 9, 0, 0)),
    "connect to a mapped address": lambda: socket.socket(socket.AF_INET6).connect((f"::ffff:{FAR}", 9)),
    "create_connection": lambda: socket.create_connection((FAR, 9), 0.1),
    "create_connection to a name": lambda: socket.create_connection((NAME, 9), 0.1),
    "connect by UDP": lambda: udp().connect((FAR, 9)),
    "sendto": lambda: udp().sendto(b"x", (FAR, 9)),
    "sendto with flags": lambda: udp().sendto(b"x", 0, (FAR, 9)),
    "sendto a name": lambda: udp().sendto(b"x", (NAME, 9)),
    "sendmsg": lambda: udp().sendmsg([b"x"], [], 0, (FAR, 9)),
    "sendmsg to a name": lambda: udp().sendmsg([b"x"], [], 0, (NAME, 9)),
    "getaddrinfo": lambda: socket.getaddrinfo(NAME, 80),
    "gethostbyname": lambda: socket.gethostbyname(NAME),
    "gethostbyname_ex": lambda: socket.gethostbyname_ex(NAME),
    "gethostbyaddr": lambda: socket.gethostbyaddr(FAR),
    "getnameinfo": lambda: socket.getnameinfo((FAR, 80), 0),
    "urllib": lambda: urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"http://{NAME}/"),
    "http.client": lambda: http.client.HTTPConnection(FAR, 9).request("GET", "/"),
    "httpx": lambda: httpx.Client(trust_env=False).get(f"http://{NAME}/"),
}


async def aiohttp_to(host: str) -> None:
    async with aiohttp.ClientSession() as session:
        await session.get(f"http://{host}:9/")


async def httpx_to(host: str) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        await client.get(f"http://{host}:9/")


async def client_to(host: str) -> None:
    async with AsyncClient(f"http://{host}:9") as client:
        await client.health()


async def connected(host: str) -> None:
    with socket.socket() as sock:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (host, 9))


async def datagrams(host: str) -> None:
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(asyncio.DatagramProtocol, remote_addr=(host, 9))


async def named(host: str) -> None:
    await asyncio.get_running_loop().getnameinfo((host, 9))


async def looked_up(host: str) -> None:
    await asyncio.get_running_loop().getaddrinfo(host, 9)


ASYNC: dict[str, Callable[[], object]] = {
    "open_connection": lambda: asyncio.open_connection(FAR, 9),
    "open_connection to a name": lambda: asyncio.open_connection(NAME, 9),
    "sock_connect": lambda: connected(FAR),
    "datagrams": lambda: datagrams(FAR),
    "getaddrinfo": lambda: looked_up(NAME),
    "getnameinfo": lambda: named(FAR),
    "aiohttp": lambda: aiohttp_to(FAR),
    "aiohttp to a name": lambda: aiohttp_to(NAME),
    "httpx": lambda: httpx_to(FAR),
    "httpx to a name": lambda: httpx_to(NAME),
    "our client": lambda: client_to(FAR),
    "our client to a name": lambda: client_to(NAME),
}


def watching() -> EgressGuard:
    guard = EgressGuard()
    guard.watch()
    return guard


def refused_by(way: Callable[[], object], guard: EgressGuard) -> int:
    """How many attempts of `way` were counted; it has to fail."""
    before = guard.refused
    with pytest.raises((OSError, aiohttp.ClientError, httpx.HTTPError, QwenAioError)):
        way()
    return guard.refused - before


def all_ways() -> dict[str, int]:
    guard = watching()
    found = {way: refused_by(go, guard) for way, go in SYNC.items()}
    for name, make in LOOPS.items():
        with asyncio.Runner(loop_factory=make) as runner:
            for way, go in ASYNC.items():
                found[f"{way}, {name} loop"] = refused_by(lambda go=go: runner.run(go()), guard)
    return found


@pytest.fixture(scope="module")
def counted() -> dict[str, int]:
    return in_own_process(all_ways)


@pytest.mark.parametrize("way", [*SYNC, *(f"{way}, {name} loop" for name in LOOPS for way in ASYNC)])
def test_every_way_out_is_refused_and_counted_once(way, counted):
    assert counted[way] == 1


def unbound_datagrams() -> int:
    guard = watching()

    async def open_endpoint() -> None:
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))

    with asyncio.Runner(loop_factory=AuditedLoop) as runner:
        return refused_by(lambda: runner.run(open_endpoint()), guard)


def test_an_endpoint_that_could_send_anywhere_unseen_is_refused():
    assert in_own_process(unbound_datagrams) == 1


async def ask_and_hang_up(*where: object, **more: object) -> None:
    _, writer = await asyncio.open_connection(*where, **more)
    writer.close()


async def stay_in(folder: str) -> None:
    """Everything that servers of this machine may do."""

    async def hang_up(_: object, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    for host in ("127.0.0.1", "localhost"):
        await ask_and_hang_up(host, port)
        with suppress(QwenAioError):  # it hangs up
            async with AsyncClient(f"http://{host}:{port}") as client:
                await client.health()
    unix = await asyncio.start_unix_server(hang_up, f"{folder}/socket")
    _, writer = await asyncio.open_unix_connection(f"{folder}/socket")
    writer.close()
    for each in (server, unix):
        each.close()


def stay_in_on_both_loops(folder: str) -> int | None:
    guard = watching()
    for make in LOOPS.values():
        with asyncio.Runner(loop_factory=make) as runner:
            runner.run(stay_in(folder))
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_INET6) as mapped:
        mapped.connect((f"::ffff:{server.getsockname()[0]}", server.getsockname()[1]))
    left, right = socket.socketpair()
    left.sendmsg((b"example", b".org"))  # buffers, not an address
    assert right.recv(100) == b"example.org"
    udp().sendto(b"x", ("127.0.0.1", 9))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"{folder}/notify")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"READY=1", f"{folder}/notify")
    socket.getaddrinfo(None, 80, flags=socket.AI_PASSIVE)
    socket.getaddrinfo(FAR, 80)  # an address needs no look-up
    socket.gethostbyaddr("127.0.0.1")
    return guard.refused


def test_loopback_and_unix_sockets_pass(tmp_path):
    assert in_own_process(stay_in_on_both_loops, str(tmp_path)) == 0


def attempt() -> None:
    with suppress(EgressRefused):
        socket.create_connection((FAR, 9))


def from_threads() -> int | None:
    guard = watching()
    threads = [threading.Thread(target=lambda: [attempt() for _ in range(50)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return guard.refused


def test_attempts_of_all_threads_are_counted():
    assert in_own_process(from_threads) == 400


def from_forks() -> tuple[int | None, list[int], int | None]:
    guard = watching()
    attempt()
    found = []
    for attempts in (0, 3):
        reading, writing = os.pipe()
        if os.fork() == 0:
            for _ in range(attempts):
                attempt()
            os.write(writing, bytes([guard.refused or 0]))
            os._exit(0)
        found.append(os.read(reading, 1)[0])
        os.wait()
    before = guard.refused
    attempt()
    return before, found, guard.refused


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no process can be forked here")
def test_forks_are_guarded_and_count_their_own():
    assert in_own_process(from_forks) == (1, [0, 3], 2)


def log_of(addresses: list[str]) -> list[str]:
    """The log of attempts to reach `addresses`."""
    messages: list[str] = []

    class Keeping(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    logging.getLogger().addHandler(Keeping())
    guard = watching()
    for address in addresses:
        with suppress(EgressRefused):
            socket.getaddrinfo(address, 80)
    assert guard.refused == len(addresses)
    return messages


def test_an_address_is_logged_once_with_the_setting_that_would_let_it_out():
    first, second = in_own_process(log_of, ["a.invalid", "b.invalid", "a.invalid", "a.invalid"])
    assert first.startswith("egress refused address=a.invalid: ")
    assert "--no-offline" in first
    assert "address=b.invalid" in second


def test_the_log_of_addresses_is_bounded():
    found = in_own_process(log_of, [f"{number}.invalid" for number in range(MAX_LOGGED + 50)] + [LONG])
    assert len(found) == MAX_LOGGED
    (long,) = in_own_process(log_of, [LONG])
    assert len(long) < MAX_SHOWN_CHARS + 300


@given(st.ip_addresses(), st.integers(0, 65535))
def test_the_error_names_the_address_and_the_setting(address, port):
    guard = EgressGuard()
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family) as sock:
        if guard.peers.may_reach(str(address), port):
            guard.on_event("socket.connect", (sock, (str(address), port)))
            return
        with pytest.raises(PermissionError, match=f"{address} port {port} is refused.*--no-offline"):
            guard.on_event("socket.connect", (sock, (str(address), port)))


def test_a_peer_passes_exactly():
    guard = EgressGuard()
    guard.peers.add("http://10.0.0.7:7861")
    with socket.socket() as sock:
        guard.on_event("socket.connect", (sock, ("10.0.0.7", 7861)))
        for other in (("10.0.0.7", 22), ("10.0.0.8", 7861)):
            with pytest.raises(EgressRefused):
                guard.on_event("socket.connect", (sock, other))


@pytest.mark.skipif(not hasattr(socket, "AF_VSOCK"), reason="Linux alone")
def test_what_reaches_the_host_of_a_virtual_machine_is_refused():
    with socket.socket(socket.AF_VSOCK) as sock, pytest.raises(EgressRefused, match=r"\(2, 9\)"):
        EgressGuard().on_event("socket.connect", (sock, (2, 9)))


class Listening(EgressGuard):
    """A guard that keeps the names that look-ups led somewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.led: list[tuple[str, bool]] = []

    def on_event(self, event, arguments):
        super().on_event(event, arguments)
        if event == RESOLVED:
            name, addresses = arguments
            self.led.append((name, "127.0.0.1" in addresses))


def resolved() -> list[tuple[str, bool]]:
    guard = Listening()
    guard.watch()

    async def resolve() -> None:
        await AuditedResolver().resolve("localhost", 7861, socket.AF_INET)

    with asyncio.Runner(loop_factory=AuditedLoop) as runner:
        runner.run(resolve())
    return guard.led


def test_our_client_tells_where_a_name_led():
    assert in_own_process(resolved) == [("localhost", True)]


def by_settings(*, offline: bool) -> list[int | None]:
    """Before an attempt, and after it; asked for twice, as by a fork server and its worker."""
    settings = Settings(offline=offline)
    guard = egress_guard(settings, "http://10.0.0.7:7861")
    assert egress_guard(settings) is guard
    assert guard.peers.may_reach("10.0.0.7", 7861)
    before = guard.refused
    with suppress(OSError):
        socket.getaddrinfo("" if not offline else NAME, 80)
    return [before, guard.refused]


@pytest.mark.parametrize(("offline", "expected"), [(True, [0, 1]), (False, [None, None])])
def test_the_setting_turns_it_off_and_then_there_is_no_count(offline, expected):
    assert in_own_process(by_settings, offline=offline) == expected


def test_nothing_is_counted_or_refused_by_a_guard_that_does_not_watch():
    assert EgressGuard().refused is None
    assert repr(EgressGuard()) == "<EgressGuard None refused, <Peers >>"
