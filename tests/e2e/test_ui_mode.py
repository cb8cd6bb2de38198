"""`python app.py --mode ui`: the page in a process of its own, with and without a server behind it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.conftest import Visit
from tests.e2e.processes import App, free_port, running, start

STORY = "刚收到货,包装完好,但颜色和图片不太一样,有点小失望"


@dataclass(frozen=True)
class Site:
    worker: App
    page: App


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Iterator[Site]:
    home = tmp_path_factory.mktemp("home")
    with (
        running(home, "--mode", "worker", "--id", "qwen-7") as worker,
        running(home, "--mode", "ui", "--url", worker.url) as page,
    ):
        yield Site(worker, page)


@pytest.fixture
def alone(tmp_path) -> Iterator[tuple[App, str]]:
    """A page in front of an address where nobody listens, and that address."""
    address = f"http://127.0.0.1:{free_port()}"
    app = start(tmp_path, "--mode", "ui", "--url", address, wait=False)
    try:
        app.wait_until("served", app.is_alive)
        yield app, address
    finally:
        app.process.kill()
        app.process.wait()


def send(page: Page, text: str) -> None:
    box = page.locator("#text textarea")
    box.fill(text)
    box.press("Enter")


def expect_an_answer(page: Page) -> None:
    send(page, STORY)
    expect(page.locator(".decided")).to_contain_text("Negative")
    expect(page.locator(".assistant .bubble").last).not_to_be_empty()
    expect(page.locator(".facts")).to_contain_text("qwen-7")
    expect(page.locator("#send")).to_be_visible()


def test_decision_conversation_and_who_answered(site: Site, visit: Visit) -> None:
    page = visit(site.page.url)
    expect(page.locator("#mode label")).to_have_count(4)
    expect_an_answer(page)
    expect(page.locator(".user .bubble")).to_have_text(STORY)
    expect(page.locator(".facts")).to_contain_text("Answered by")
    expect(page.locator("#about")).to_contain_text("qwen-aio-bundled")
    expect(page.locator("#about")).to_contain_text(site.worker.url)
    expect(page.locator("#about")).to_contain_text("demonstration")


def test_health_of_the_page_names_who_is_behind_it(site: Site) -> None:
    status, body = site.page.get("/health")
    assert (status, body["server"], body["worker"]) == (200, site.worker.url, "qwen-7")
    assert (body["answers"], body["model"]) == (True, "qwen-aio-bundled")
    assert 0 <= body["age_s"] < 30


def test_the_page_has_no_entry_in_status_json_and_no_v1(site: Site) -> None:
    assert list(site.worker.status()) == ["qwen-7"]
    status, body = site.page.post("/v1/run", {"text": "hi"})
    assert (status, body["error"]["code"]) == (404, "unknown_path")


def test_a_page_without_a_server_says_so_in_both_languages(alone: tuple[App, str], visit: Visit) -> None:
    app, address = alone
    english, chinese = visit(app.url), visit(app.url, locale="zh-CN")
    expect(english.locator(".notice.error")).to_contain_text(f"No server answers at {address}")
    expect(chinese.locator(".notice.error")).to_contain_text(f"{address} 没有服务器应答")
    for page in (english, chinese):
        expect(page.locator(".notice.error")).to_contain_text(f"curl {address}/health")
        expect(page.locator("#about")).to_contain_text(address)
    app.wait_until("told on stderr", lambda: f"curl {address}/health" in app.log.read_text())
    status, body = app.get("/health")
    assert (status, body["error"]["code"], body["answers"]) == (503, "server_unreachable", False)


def test_a_page_ends_when_told_also_while_a_visitor_waits(alone: tuple[App, str], browser: Browser) -> None:
    app, _ = alone
    page = browser.new_page()  # not visit: a browser complains of a server that leaves
    page.goto(app.url)
    expect(page.locator(".notice.error")).to_contain_text("No server answers")
    assert app.stop() == 0
    assert "Traceback" not in app.log.read_text()
    page.close()


def test_a_page_that_came_first_goes_on_by_itself_and_outlives_its_server(
    alone: tuple[App, str], visit: Visit, tmp_path: Path
) -> None:
    app, address = alone
    page = visit(app.url)
    expect(page.locator(".notice.error")).to_contain_text("No server answers")
    page.locator("#text textarea").fill("typed while waiting")
    flags = ("--mode", "worker", "--id", "qwen-7")
    port = int(address.rpartition(":")[2])
    with running(tmp_path, *flags, port=port) as worker:
        expect(page.locator("#mode label")).to_have_count(4)
        expect(page.locator(".notice")).to_have_count(0)
        expect(page.locator("#about")).to_contain_text("qwen-aio-bundled")
        expect(page.locator("#text textarea")).to_have_value("typed while waiting")
        expect_an_answer(page)
        worker.stop(signal.SIGKILL)
    send(page, "anybody there?")
    expect(page.locator(".notice.error")).to_contain_text("No server answers")
    expect(page.locator("#text textarea")).to_have_value("anybody there?")
    with running(tmp_path, *flags, port=port):
        expect_an_answer(page)
        expect(page.locator(".notice")).to_have_count(0)
        app.wait_until("ready again", lambda: app.get("/readyz")[0] == 200)
