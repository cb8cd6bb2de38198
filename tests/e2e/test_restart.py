"""An open tab whose server goes away and comes back: killed, frozen, or replaced. The visitor reloads nothing."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.campaign import in_campaign, only_in_campaign
from tests.e2e.processes import App, free_port, running, start

BEFORE = "快递太慢了,差评!"
AFTER = "客服态度超好,必须点赞!"
RECOVERS_WITHIN_MS = 5000  # from the moment the server is ready
FROZEN_MS = 16_000  # Gradio's heartbeat comes every 15 s


@pytest.fixture
def tab(browser: Browser) -> Iterator[Page]:
    """A new tab, in Chinese. Not `visit`: a browser complains of a server that leaves."""
    context = browser.new_context(locale="zh-CN", viewport={"width": 1280, "height": 800})
    yield context.new_page()
    context.close()


def send(page: Page, text: str) -> None:
    box = page.locator("#text textarea")
    box.fill(text)
    box.press("Enter")


def talk(page: Page, app: App) -> str:
    """Open the page, choose and say something; the reply."""
    page.goto(app.url)
    expect(page.locator("#mode label")).to_have_count(4)
    page.locator("#mode label", has_text="情感").click()
    send(page, BEFORE)
    expect(page.locator(".assistant .bubble")).to_have_text(re.compile(r"\S{2,}"))
    expect(page.locator("#send")).to_be_visible()
    return page.locator(".assistant .bubble").inner_text()


def expect_the_conversation_goes_on(page: Page, reply: str) -> None:
    """One more exchange, below the first, with choices and language as they were."""
    expect(page.locator(".decided")).to_contain_text("正面", timeout=RECOVERS_WITHIN_MS)
    expect(page.locator(".user .bubble")).to_have_text([BEFORE, AFTER])
    expect(page.locator(".assistant .bubble")).to_have_text([reply, re.compile(r"\S{2,}")])
    expect(page.locator("#send")).to_have_text("发送")
    expect(page.locator("#mode input:checked")).to_have_value("sentiment")


def wait_for_the_reload(page: Page) -> None:
    """Until Gradio, which says that the connection is lost, has found the server again and reloaded the page."""
    expect(page.locator(".toast-body")).to_have_count(0, timeout=RECOVERS_WITHIN_MS)


@contextmanager
def site(home: Path, mode: str, port: int) -> Iterator[App]:
    """The page on `port`: with its model, or alone in front of a worker."""
    if mode == "single":
        with running(home, port=port) as app:
            yield app
    else:
        with (
            running(home, "--mode", "worker") as worker,
            running(home, "--mode", "ui", "--url", worker.url, port=port) as app,
        ):
            yield app


@pytest.mark.parametrize(("first", "second"), [("ui", "single"), *in_campaign(("single", "single"))])
@only_in_campaign
def test_a_tab_that_noticed_nothing_goes_on_with_its_next_message(
    first: str, second: str, tab: Page, tmp_path: Path
) -> None:
    port = free_port()
    with site(tmp_path, first, port) as app:
        reply = talk(tab, app)
        app.stop(signal.SIGKILL)
    with site(tmp_path, second, port):
        send(tab, AFTER)
        expect_the_conversation_goes_on(tab, reply)


@pytest.mark.parametrize("mode", ["single", *in_campaign("ui")])
@only_in_campaign
def test_a_message_sent_while_the_server_is_away_waits_in_the_box(mode: str, tab: Page, tmp_path: Path) -> None:
    port = free_port()
    with site(tmp_path, mode, port) as app:
        reply = talk(tab, app)
        app.stop(signal.SIGKILL)
    send(tab, AFTER)
    expect(tab.locator(".toast-body.error")).to_be_visible()
    with site(tmp_path, mode, port):
        wait_for_the_reload(tab)
        expect(tab.locator(".user .bubble")).to_have_text([BEFORE])
        expect(tab.locator("#text textarea")).to_have_value(AFTER)
        tab.locator("#send").click()
        expect_the_conversation_goes_on(tab, reply)


def test_a_message_without_a_reply_is_put_back_when_the_page_is_killed(tab: Page, tmp_path: Path) -> None:
    port = free_port()
    with running(tmp_path, "--mode", "worker") as worker:
        flags = ("--mode", "ui", "--url", worker.url)
        with running(tmp_path, *flags, port=port) as app:
            reply = talk(tab, app)
            worker.process.send_signal(signal.SIGSTOP)
            send(tab, AFTER)
            expect(tab.locator("#stop")).to_be_visible()
            app.stop(signal.SIGKILL)
        expect(tab.locator(".toast-body.error")).to_be_visible()
        worker.process.send_signal(signal.SIGCONT)
        with running(tmp_path, *flags, port=port):
            wait_for_the_reload(tab)
            expect(tab.locator(".notice")).to_contain_text("回复中断了")
            expect(tab.locator(".user .bubble")).to_have_text([BEFORE])
            expect(tab.locator("#text textarea")).to_have_value(AFTER)
            tab.locator("#send").click()
            expect_the_conversation_goes_on(tab, reply)


@only_in_campaign
def test_a_tab_outlasts_a_server_that_is_frozen_for_longer_than_a_heartbeat(tab: Page, tmp_path: Path) -> None:
    with running(tmp_path) as app:
        reply = talk(tab, app)
        app.process.send_signal(signal.SIGSTOP)
        send(tab, AFTER)
        tab.wait_for_timeout(FROZEN_MS)
        app.process.send_signal(signal.SIGCONT)
        expect_the_conversation_goes_on(tab, reply)


def opened_dashboard(tab: Page, home: Path, port: int) -> App:
    """A balancer on `port`, and its dashboard, which is live."""
    app = start(home, port=port, program="balancer.py")
    tab.goto(app.url)
    expect(tab.locator("#live")).to_be_visible()
    return app


def test_the_dashboard_of_a_killed_balancer_comes_back(tab: Page, tmp_path: Path) -> None:
    port = free_port()
    with running(tmp_path, "--mode", "worker"):
        opened_dashboard(tab, tmp_path, port).stop(signal.SIGKILL)
        expect(tab.locator("#stale")).to_be_visible()
        with running(tmp_path, port=port, program="balancer.py"):
            expect(tab.locator("#live")).to_be_visible(timeout=RECOVERS_WITHIN_MS)


@only_in_campaign
def test_the_dashboard_of_a_frozen_balancer_comes_back(tab: Page, tmp_path: Path) -> None:
    with running(tmp_path, "--mode", "worker"):
        app = opened_dashboard(tab, tmp_path, free_port())
        try:
            app.process.send_signal(signal.SIGSTOP)
            expect(tab.locator("#stale")).to_contain_text(
                re.compile("1[6-9] 秒")
            )  # by then the page has given the connection up
            app.process.send_signal(signal.SIGCONT)
            expect(tab.locator("#live")).to_be_visible(timeout=RECOVERS_WITHIN_MS)
        finally:
            app.process.kill()
            app.process.wait()
