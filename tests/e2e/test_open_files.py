"""Processes that may open few files: floods of connections are refused in words, and pass without a trace."""

from __future__ import annotations

import json
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass

import pytest

from tests.e2e.processes import App, running

FILES = 64
FLOOD = 200
QUESTION = {"text": "快递太慢了,差评!", "mode": "sentiment"}
BEGINNINGS = (b"", b"GET /v1/tasks HTTP/1.1\r\nHost: loc", b"\x16\x03\x01", b"\r\n")


def with_few_files() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, FILES))


@dataclass(frozen=True)
class Site:
    worker: App
    balancer: App


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Iterator[Site]:
    home = tmp_path_factory.mktemp("home")
    with (
        running(home, "--mode", "worker", "--id", "qwen-1", before=with_few_files) as worker,
        running(home, program="balancer.py", before=with_few_files) as balancer,
    ):
        yield Site(worker, balancer)


@pytest.mark.parametrize("flooded", ["worker", "balancer"])
def test_a_flood_is_refused_in_words_and_forgotten(site, flooded):
    app: App = getattr(site, flooded)
    address = ("127.0.0.1", int(app.url.rpartition(":")[2]))
    started_at = time.monotonic()
    with ExitStack() as held:
        flood = [held.enter_context(socket.create_connection(address, timeout=30)) for _ in range(FLOOD)]
        for number, connection in enumerate(flood):
            with suppress(OSError):  # some are refused already
                connection.sendall(BEGINNINGS[number % len(BEGINNINGS)])
        assert app.get("/livez") == (200, {"status": "ok"})
        status, body = app.get("/v1/tasks")
        assert (status, body["error"]["code"]) == (503, "too_many_connections")
        # One that sends into a closed connection may lose the refusal to a reset, so those count that said nothing.
        silent = flood[:: len(BEGINNINGS)]
        replies = [reply for reply in map(_reply, silent) if reply.startswith(b"HTTP/1.1 503")]
        assert len(replies) > len(silent) // 2
        told = [json.loads(reply.partition(b"\r\n\r\n")[2]) for reply in replies]
        assert {error["error"]["code"] for error in told} == {"too_many_connections"}
        took_s = time.monotonic() - started_at
    lines = app.log.read_text().splitlines()
    assert 1 <= sum("no room for more connections" in line for line in lines) <= 1 + took_s
    assert not [line for line in lines if "Traceback" in line or "Too many open files" in line]
    app.wait_until("serving again", lambda: app.get("/v1/tasks")[0] == 200)
    assert site.balancer.post("/v1/run", QUESTION)[1]["label"] == "negative"


def _reply(connection: socket.socket) -> bytes:
    """What has come over a connection; nothing of one that is still open."""
    connection.setblocking(False)
    try:
        return connection.recv(65536)
    except OSError:
        return b""
