"""`--host` in all spellings of loopback, and what probes and proxies send: a real balancer, since it starts fast."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.e2e.processes import App, start


@pytest.fixture
def balancer(request, tmp_path) -> Iterator[App]:
    app = start(tmp_path, "--host", request.param, program="balancer.py", wait=False)
    try:
        app.wait_until("served", app.is_alive)
        yield app
    finally:
        app.process.kill()
        app.process.wait()


def exchange(app: App, request: bytes) -> bytes:
    parts = urlsplit(app.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=30) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize(
    ("balancer", "shown"),
    [
        ("[::1]", "http://[::1]:"),
        ("127.0.0.2", "http://127.0.0.2:"),
        ("LOCALHOST", "http://localhost:"),
        ("::ffff:127.0.0.1", "http://127.0.0.1:"),
    ],
    indirect=["balancer"],
)
def test_loopback_needs_no_leave_and_is_shown_as_it_can_be_opened(balancer, shown):
    assert balancer.url.startswith(shown)
    assert balancer.get("/")[0] == 200
    assert balancer.get("/", headers={"Host": "evil.example"})[0] == 400
    whole_url = f"GET {balancer.url}/status HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
    assert exchange(balancer, whole_url.encode()).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("balancer", ["127.0.0.1"], indirect=True)
def test_probes_get_a_status_whatever_they_call_us(balancer):
    for path, status in (("/livez", b"200"), ("/readyz", b"503")):
        for request in (f"GET {path} HTTP/1.0\r\n\r\n", f"GET {path} HTTP/1.1\r\nHost: 10.244.1.7:8000\r\n"):
            reply = exchange(balancer, f"{request}Connection: close\r\n\r\n".encode())
            assert reply.split()[1] == status
            assert b"/status" not in reply and b"worker" not in reply.partition(b"\r\n\r\n")[2].replace(
                b"no_worker", b""
            )
    assert exchange(balancer, b"GET /health HTTP/1.0\r\n\r\n").split()[1] == b"400"
