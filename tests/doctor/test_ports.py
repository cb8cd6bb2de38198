"""Free ports, ports of our own servers, and ports of others."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from qwen_aio.balancer.snapshot import HealthRecord
from qwen_aio.client.async_client import AsyncClient
from qwen_aio.doctor import ports
from qwen_aio.doctor.finding import Finding
from qwen_aio.doctor.ports import PortState, described_server, port_findings, read_ports
from qwen_aio.status.record import WorkerStatus
from qwen_aio.ui.remote_service import RemoteService

HOST = "127.0.0.1"
KEY_WANTED = (
    b'{"error": {"message": "a key", "type": "x", "param": null, "code": "invalid_api_key", "request_id": "1"}}'
)


@contextmanager
def answering(body: bytes, *, status: int = 200) -> Iterator[int]:
    """A server that says this to everybody; its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    with HTTPServer((HOST, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def read(*found: int) -> list[PortState]:
    return read_ports(
        [(HOST, port, "--port") for port in found], lambda host, port: AsyncClient(f"http://{host}:{port}")
    )


def test_free_ports_are_one_line_and_every_other_has_its_own():
    states = [
        PortState(1),
        PortState(2, "it is in use"),
        PortState(3, "in use", owner="worker qwen-1 (ready)"),
        PortState(4),
    ]
    free, taken, ours = port_findings(states)
    assert free == Finding("ok", "free: 1, 4")
    assert taken == Finding("problem", "it is in use")
    assert ours.mark == "note" and ours.found == "worker qwen-1 (ready) answers on port 3 already"
    assert [each.mark for each in port_findings(states[1:2])] == ["problem"]


def test_a_free_port_is_free_afterwards():
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
    assert read(port) == [PortState(port)] == read(port)


def test_the_records_of_our_own_servers_are_told_apart():
    worker = WorkerStatus("qwen-1", "http://127.0.0.1:1", 1, 1.0, 3, 1, "ready")
    balancer = HealthRecord("ok", 1, 1, 0, "weighted", "0.4.0", {"qwen-1": "up"})
    assert described_server(asdict(worker)) == "worker qwen-1 (ready)"
    assert described_server(asdict(balancer)) == "a balancer (ok)"
    page = RemoteService(AsyncClient("http://127.0.0.1:9"), url="http://127.0.0.1:9", version="0")
    assert described_server({"state": "ready"} | page.record()) == "a page (ready)"


@pytest.mark.parametrize(
    ("body", "status", "owner"),
    [
        (b'{"state": "ready", "id": "qwen-1", "generation": 3}', 200, "worker qwen-1 (ready)"),
        (b'{"state": "starting", "workers": {}}', 503, "a balancer (starting)"),
        (b'{"state": "ready", "server": "http://127.0.0.1:8000", "answers": true}', 200, "a page (ready)"),
        (b'{"state": "Running"}', 200, ""),
        (KEY_WANTED, 401, "a server that asks for a key, as ours do,"),
        (b'{"status": "UP"}', 200, ""),
        (b"<html>It works!</html>", 200, ""),
        (b"<html>who are you?</html>", 401, ""),
    ],
)
def test_who_answers_is_known_by_the_record_of_health(body, status, owner):
    with answering(body, status=status) as port:
        (state,) = read(port)
    assert state.owner == owner
    assert f"cannot listen on {HOST}:{port}: it is in use" in state.refusal and "--port" in state.refusal


def test_whoever_says_nothing_is_somebody_else(monkeypatch):
    monkeypatch.setattr(ports, "WAIT_S", 0.1)
    with socket.create_server((HOST, 0)) as silent:
        port = silent.getsockname()[1]
        (state,) = read(port)
    assert state.refusal and state.owner == ""


def test_an_address_of_another_machine_cannot_be_listened_on():
    (state,) = read_ports([("192.0.2.1", 7860, "--port")], lambda *_: AsyncClient("http://127.0.0.1:9"))
    assert "cannot listen on 192.0.2.1:7860" in state.refusal and "--host" in state.refusal


def test_what_a_stranger_says_about_itself_is_cut():
    assert len(described_server({"state": "x" * 1000, "id": "y" * 1000, "generation": 1})) < 200
