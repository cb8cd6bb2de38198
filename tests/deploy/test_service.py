"""A cluster as its unit starts it, with nginx before it as deploy/nginx says: both for real, but for systemd."""

from __future__ import annotations

import http.client
import json
import shlex
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from qwen_aio.cluster.unit import ServiceUnit
from tests.campaign import in_campaign
from tests.deploy.sandbox import lines, sandbox
from tests.e2e.clusters import Cluster, cluster
from tests.e2e.processes import running
from tests.nginx import BALANCER, PAGE, SITE, nginx_with

NAME = "qwen.example"
PER_MINUTE = 4  # requests of one address; a test that computes takes an address of its own
QUESTION = {"text": "快递太慢了,差评!", "mode": "sentiment"}
pytestmark = pytest.mark.timeout(300)


@dataclass
class Site:
    """The service, what it tells systemd, and the port of nginx."""

    service: Cluster
    manager: socket.socket
    port: int

    def send(
        self, method: str, path: str, body: object = None, *, client: str = "127.0.0.1", **headers: str
    ) -> tuple[int, Any, bytes]:
        """Status, headers and body of nginx's reply to somebody at the address `client`."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60, source_address=(client, 0))
        content = None if body is None else json.dumps(body).encode()
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, content, {"Host": NAME, "Content-Type": "application/json", **given})
        response = connection.getresponse()
        try:
            return response.status, response.headers, response.read()
        finally:
            connection.close()


def told(manager: socket.socket, *, until: bytes) -> set[bytes]:
    """The messages that come before `until`."""
    messages = set()
    while (message := manager.recv(100)) != until:
        messages.add(message)
    return messages


@pytest.fixture(scope="module")
def manager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path_factory.mktemp("systemd") / "notify"))
        sock.settimeout(60)
        yield sock


@pytest.fixture(scope="module")
def site(manager: socket.socket, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    home = tmp_path_factory.mktemp("service")
    unit = str(ServiceUnit("cluster", home=home))
    environment = dict(line.split("=", 1) for line in lines(unit, "Environment"))
    environment |= {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "200000"}
    flags = ("--allowed-hosts", NAME, "--trusted-proxies", "127.0.0.1", "--requests-per-minute", str(PER_MINUTE))
    with cluster(home, *flags, num_workers=1, environment=environment, before=sandbox(unit)) as service:
        servers = {PAGE: urlsplit(service.page_url).netloc, BALANCER: urlsplit(service.url).netloc}
        with nginx_with(home / "nginx", SITE.read_text(encoding="utf-8"), servers) as port:
            yield Site(service, manager, port)


def test_the_unit_starts_this_command() -> None:
    (line,) = lines(str(ServiceUnit("cluster", ("--workers", "1"))), "ExecStart")
    assert shlex.split(line) == [sys.executable, "-m", "qwen_aio.cli.main", "cluster", "--workers", "1"]


def test_systemd_learns_that_all_are_ready_and_that_the_cluster_lives(site: Site) -> None:
    assert told(site.manager, until=b"READY=1") == set()  # no child speaks for itself
    assert told(site.manager, until=b"WATCHDOG=1") == set()
    assert told(site.manager, until=b"WATCHDOG=1") == set()


def test_it_runs_under_the_filter_of_the_unit(site: Site) -> None:
    for process in site.service.everybody():
        assert "Seccomp:\t2\n" in Path(f"/proc/{process.pid}/status").read_text()


def test_page_and_dashboard_and_decisions_come_through_nginx(site: Site) -> None:
    assert b"gradio" in site.send("GET", "/")[2]
    assert b"qwen-1" in site.send("GET", "/balancer/")[2]
    for path in ("/v1/run", "/balancer/v1/run"):
        status, _, body = site.send("POST", path, QUESTION)
        assert (status, json.loads(body)["label"]) == (200, "negative")


def test_an_answer_is_streamed_to_its_end(site: Site) -> None:
    status, headers, body = site.send("POST", "/v1/run", {"text": "你好", "mode": "chat", "stream": True})
    assert (status, headers["Content-Type"], body.count(b"event: done")) == (200, "text/event-stream; charset=utf-8", 1)


def test_every_client_has_its_own_limit_and_none_gets_another_by_a_header(site: Site) -> None:
    def left(client: str, **headers: str) -> str:
        return site.send("POST", "/v1/run", QUESTION, client=client, **headers)[1]["X-RateLimit-Remaining-Requests"]

    assert [left("127.0.0.2"), left("127.0.0.2", X_Forwarded_For="8.8.8.8"), left("127.0.0.3")] == ["3", "2", "3"]


@pytest.mark.parametrize("header", ["X_Forwarded_Host", "X_Forwarded_Prefix"])
def test_what_a_proxy_would_say_is_not_taken_from_a_client(header: str, site: Site) -> None:
    value = {"X_Forwarded_Host": "evil.example", "X_Forwarded_Prefix": "/v1"}[header]
    assert site.send("GET", "/v1/tasks", **{header: value})[0] == 200


def test_a_name_that_was_not_allowed_is_refused(site: Site) -> None:
    status, _, body = site.send("GET", "/v1/tasks", Host="evil.example")
    assert (status, json.loads(body)["error"]["code"]) == (400, "host_refused")


@pytest.mark.parametrize(("size", "by"), [(1_500_000, "server"), (3_000_000, "nginx")])
def test_a_large_body_is_refused_by_the_server_and_a_huge_one_by_nginx(size: int, by: str, site: Site) -> None:
    status, headers, body = site.send("POST", "/v1/run", {"text": "a" * size}, client="127.0.0.4")
    assert (status, headers["Content-Type"]) == (413, {"server": "application/json", "nginx": "text/html"}[by])
    assert (b"body_too_large" in body) == (by == "server")


def test_metrics_are_not_for_everybody(site: Site) -> None:
    assert [site.send("GET", path)[0] for path in ("/metrics", "/balancer/metrics")] == [404, 404]


def test_systemd_learns_of_the_end(site: Site) -> None:  # the last one
    site.service.process.send_signal(signal.SIGTERM)
    assert told(site.manager, until=b"STOPPING=1") == {b"WATCHDOG=1"}
    assert site.service.process.wait(timeout=60) == 0


@pytest.mark.parametrize("command", ["balancer.py", *in_campaign("app.py --mode worker")])
def test_balancers_and_workers_report_by_themselves(command: str, tmp_path: Path) -> None:
    program, *flags = command.split()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address := str(tmp_path / "notify"))
        manager.settimeout(60)
        environment = {"NOTIFY_SOCKET": address}
        with running(tmp_path / "home", *flags, program=program, wait=False, environment=environment) as app:
            assert told(manager, until=b"READY=1") == set()
            assert app.stop() == 0
            assert told(manager, until=b"STOPPING=1") == set()
