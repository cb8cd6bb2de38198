"""Without any route out: a whole cluster in a browser leaves nothing to refuse, and what calls home is refused and counted."""

from __future__ import annotations

import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.clusters import Cluster, cluster
from tests.e2e.conftest import Visit
from tests.e2e.namespace import ELSEWHERE, no_network
from tests.e2e.processes import ROOT, App, running

pytestmark = pytest.mark.timeout(300)
COMPLAINT = "快递太慢了,差评!"
FAR = ("192.0.2.1", 9)
ATTEMPTS = 3
# Python runs it at the start of every process that has its folder on the path: as soon as gradio is imported, it
# calls home, as a library of somebody else might.
CALLS_HOME = f"""
import contextlib, socket, sys, urllib.request

class CallsHome:
    def find_spec(self, name, path=None, target=None):
        if name == "gradio":
            sys.meta_path.remove(self)
            for _ in range({ATTEMPTS - 1}):
                with contextlib.suppress(OSError):
                    socket.create_connection({FAR}, 0.1)
            with contextlib.suppress(OSError):
                urllib.request.urlopen("http://telemetry.invalid/")

sys.meta_path.insert(0, CallsHome())
"""


@pytest.fixture(autouse=True, scope="module")
def _no_network() -> Iterator[None]:
    with no_network():
        with pytest.raises(OSError, match="unreachable"):
            socket.create_connection(FAR, 1)
        yield


@pytest.fixture(scope="module")
def python() -> str:
    """The installation that is tried: this one's interpreter. An unpacked and installed bundle's can stand here."""
    return sys.executable


@pytest.fixture
def service(python: str, tmp_path: Path) -> Iterator[Cluster]:
    with cluster(tmp_path, num_workers=2, python=python) as running_cluster:
        yield running_cluster


def test_a_cluster_classifies_and_chats_in_a_browser_without_one_attempt_to_leave(
    service: Cluster, visit: Visit
) -> None:
    page = visit(service.page_url)
    expect(page.locator("#mode label")).to_have_count(4)  # the tasks have arrived
    for sent in (COMPLAINT, "你好"):
        page.locator("#text textarea").fill(sent)
        page.locator("#text textarea").press("Enter")
        expect(page.locator(".assistant .bubble").last).to_have_text(re.compile(r"\S"))
        expect(page.locator("#text textarea")).to_be_editable()
        if sent == COMPLAINT:
            expect(page.locator(".decided")).to_contain_text("Negative")
    dashboard = visit(service.url)
    expect(refused_of(dashboard)).to_have_text(["0", "0", "0"])  # all together, and of both workers
    expect(dashboard.locator("#requests tbody tr").nth(1)).to_be_visible()
    assert {row["egress_refused"] for row in service.get("/status")[1]["workers"]} == {0}
    assert [health_of(service, url)["egress_refused"] for url in (service.url, service.page_url)] == [0, 0]
    assert "qwen_aio_egress_refused_total 0.0" in service.get("/metrics")[1]
    assert "egress refused" not in service.log.read_text()


def refused_of(dashboard: Page):
    return dashboard.locator("main [data-text=egress]")


def health_of(service: App, url: str) -> dict:
    return App(service.process, url, service.home, service.log).get("/health")[1]


@pytest.fixture
def calls_home(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "sitecustomize.py").write_text(CALLS_HOME)
    return {"PYTHONPATH": f"{tmp_path}:{ROOT}"}


@pytest.fixture
def calling(calls_home: dict[str, str], tmp_path: Path) -> Iterator[tuple[App, App]]:
    """A server with a library that calls home, and a balancer before it."""
    home = tmp_path / "home"
    with running(home, environment=calls_home) as app, running(home, program="balancer.py") as balancer:
        yield app, balancer


def test_a_library_that_calls_home_is_refused_and_counted_where_an_operator_looks(
    calling: tuple[App, App], visit: Visit
) -> None:
    app, balancer = calling
    app.wait_until("reported", lambda: app.get("/health")[1]["egress_refused"] == ATTEMPTS)
    assert f"qwen_aio_egress_refused_total {ATTEMPTS}.0" in app.get("/metrics")[1]
    lines = re.findall("egress refused address=(.*?):", app.log.read_text())
    assert lines == ["192.0.2.1 port 9", "telemetry.invalid"]  # once each
    assert app.post("/v1/run", {"text": COMPLAINT, "mode": "sentiment"})[1]["label"] == "negative"
    expect(refused_of(visit(balancer.url))).to_have_text([f"{ATTEMPTS}", f"{ATTEMPTS}"])
    assert balancer.get("/health")[1]["egress_refused"] == 0


def test_a_balancer_reaches_a_worker_elsewhere_that_it_found_in_the_status_file(tmp_path: Path) -> None:
    worker = running(tmp_path, "--mode", "worker", "--id", "far", "--host", ELSEWHERE, "--insecure")
    with worker as app, running(tmp_path, program="balancer.py") as balancer:
        assert urlsplit(app.url).hostname == ELSEWHERE
        assert balancer.post("/v1/run", {"text": COMPLAINT, "mode": "sentiment"})[1]["worker"] == "far"
        assert balancer.get("/health")[1]["egress_refused"] == 0


def test_without_the_guard_nothing_is_counted_and_nobody_says_zero(calls_home: dict[str, str], tmp_path: Path) -> None:
    with running(tmp_path / "home", "--no-offline", environment=calls_home) as app:
        assert app.get("/health")[1]["egress_refused"] is None
        assert "egress_refused" not in app.get("/metrics")[1]
        assert "egress refused" not in app.log.read_text()
