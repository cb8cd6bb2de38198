"""The dashboard in a real browser, over a real socket and the real guard; the balancer is a fake."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import axe_playwright_python
import pytest
import uvicorn
from playwright.sync_api import Browser, Page, expect

from qwen_aio.balancer.dashboard.page import MAX_ROWS
from qwen_aio.balancer.dashboard.routes import dashboard_routes
from qwen_aio.balancer.reasons import FROZEN_BUT_SERVING, LOADING, SILENT, Reason
from qwen_aio.balancer.snapshot import Cost
from qwen_aio.errors import QueueFull
from qwen_aio.serving.admission import AdmissionGate
from qwen_aio.serving.app import create_app
from qwen_aio.serving.health_routes import Health
from qwen_aio.serving.transport.server import bind
from tests.balancer.fake_view import NEW, ROW, SECOND, FakeView
from tests.balancer.test_dashboard import HOSTILE
from tests.e2e.conftest import Visit
from tests.e2e.geometry import flaws

AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js").read_text(encoding="utf-8")
TICK_S = 0.3
# All texts with their places, to compare the first paint with the script's rows.
SHOWN = """root => [...root.querySelectorAll("main [data-text], main [data-time], main rect")].map(
    node => node.localName !== "rect" ? `${node.dataset.text}=${node.textContent} ${node.dataset.lang ? node.lang : ""}` : `${node.getAttribute("width")}x${node.getAttribute("height")}`
)"""


class Site:
    """A dashboard in a thread of its own; `stop` and `start` are a restart on the same port."""

    def __init__(self, view: FakeView) -> None:
        self.view = view
        self.port = 0
        self.is_silent = False
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def start(self) -> None:
        self._sock = bind("127.0.0.1", self.port)
        self.port = self._sock.getsockname()[1]
        app = create_app(AdmissionGate(), routes=dashboard_routes(self.view), health=lambda: Health({}, None))
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="none", timeout_graceful_shutdown=1))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))
        self._thread.start()

    def stop(self) -> None:
        self.do(self.view.stats.close)
        self._server.should_exit = True
        self._thread.join()
        self._loop.close()
        self._sock.close()

    def do(self, change: Callable[[], Any]) -> None:
        """Run `change` on the event loop of the stats, then tick."""
        done = threading.Event()

        def run() -> None:
            change()
            self.view.tick()
            done.set()

        self._loop.call_soon_threadsafe(run)
        assert done.wait(timeout=10)

    def set_row(self, worker_id: str, **fields: Any) -> None:
        self.do(lambda: self.view.rows.update({worker_id: replace(self.view.rows[worker_id], **fields)}))

    async def _serve(self) -> None:
        ticker = asyncio.create_task(self._tick())
        await self._server.serve([self._sock])
        ticker.cancel()

    async def _tick(self) -> None:
        while True:
            if not self.is_silent:
                self.view.tick()
            await asyncio.sleep(TICK_S)


def fresh_view() -> FakeView:
    return FakeView(ROW, SECOND, time=time.time)


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site(fresh_view())
    yield site
    site.stop()


def live(page: Page) -> Page:
    """`page` once news arrive."""
    expect(page.locator("#live")).to_be_visible()
    return page


def worker(page: Page, worker_id: str) -> Any:
    return page.locator(f"#workers tbody[data-id={worker_id}]")


def opened(browser: Browser, url: str, **context: Any) -> Page:
    """A page whose console may have errors: the browser logs lost servers and refusals there."""
    page = browser.new_context(locale="en-US", viewport={"width": 1280, "height": 800}, **context).new_page()
    page.goto(url)
    return live(page)


# ---- what is shown ----


def test_the_first_paint_needs_no_script(site: Site, visit: Visit) -> None:
    site.do(lambda: site.view.finish("request-1"))
    page = visit(site.url, java_script_enabled=False)
    expect(page.locator("#workers tbody")).to_have_count(2)
    expect(worker(page, "qwen-1")).to_contain_text("93 %")
    expect(page.locator("#requests")).to_contain_text("request-1")
    expect(page.get_by_role("button", name="Maintenance qwen-1")).to_have_count(0)


@pytest.mark.parametrize("locale", ["en-US", "zh-CN"])
def test_the_script_shows_what_the_server_showed(site: Site, visit: Visit, locale: str) -> None:
    site.is_silent = True
    still = {"status_age_s": 12.3, "uptime_s": 59.0}
    site.view.rows |= {
        "qwen-2": replace(
            SECOND, admin="drain", cost=None, speed=0.2, latency_ms_last5=(), completed=1_234_567, **still
        ),
        "qwen-3": NEW,
        "qwen-4": replace(
            SECOND,
            id="qwen-4",
            admin="maint",
            health="down",
            why=Reason(SILENT, seconds=18),
            breaker="half_open",
            cpu_percent=120.0,
            in_flight=9,
            rss_mb=12345.6,
            uptime_s=1e6,
            latency_ms_last5=(0.4, 999.6, 12_345.6),
            latency_ms_mean5=61_000.0,
            cost=Cost(12.34, 1.5, 5.0, 4.0, 370.2),
        ),
    }
    site.view.wall_clock = lambda: 1_700_000_000.0
    for index in range(MAX_ROWS + 20):
        site.do(lambda index=index: site.view.finish(f"request-{index}", task=("chat", "sentiment")[index % 2]))
    site.do(lambda: site.view.finish("refused", worker="", error=QueueFull("full")))
    site.do(lambda: site.view.stats.event("qwen-2", "person", "ready -> drain", "by the dashboard"))
    stands_still = Reason(FROZEN_BUT_SERVING, seconds=6)
    site.do(lambda: site.view.stats.event("qwen-3", "clock", "record stands still", stands_still))
    page = live(visit(site.url, locale=locale))
    expect(page.locator("#requests tbody tr")).to_have_count(MAX_ROWS)
    painted = (
        f'fetch("/").then(r => r.text()).then(html => ({SHOWN})(new DOMParser().parseFromString(html, "text/html")))'
    )
    assert page.evaluate(f"({SHOWN})(document)") == page.evaluate(painted)


def test_values_move(site: Site, visit: Visit) -> None:
    page = live(visit(site.url))
    expect(worker(page, "qwen-1")).to_contain_text("3 / 8")
    site.set_row("qwen-1", in_flight=7, cpu_percent=41.0)
    expect(worker(page, "qwen-1")).to_contain_text("7 / 8")
    expect(worker(page, "qwen-1")).to_contain_text("41 %")
    expect(page.locator("#summary [data-text=in_flight]")).to_have_text("7")
    site.set_row("qwen-2", health="down", why="connection refused", breaker="open")
    expect(worker(page, "qwen-2").locator(".badge")).to_have_text("down")
    expect(worker(page, "qwen-2").locator(".why")).to_have_text("connection refused")
    expect(page.locator("#summary .state")).to_contain_text("degraded")


def test_workers_come_and_go(site: Site, visit: Visit) -> None:
    page = live(visit(site.url))
    site.do(lambda: site.view.rows.update({"qwen-0": replace(ROW, id="qwen-0")}))
    expect(page.locator("#workers tbody")).to_have_count(3)
    site.do(site.view.rows.clear)
    expect(page.locator("#workers tbody")).to_have_count(0)
    expect(page.get_by_text("No worker is known")).to_be_visible()


def test_the_charts_are_drawn_and_show_their_last_values(site: Site, visit: Visit) -> None:
    page = live(visit(site.url))
    expect(page.locator("#charts canvas")).to_have_count(4)
    expect(page.locator("[data-chart=cpu] li")).to_have_text(["qwen-193 %", "qwen-212 %"])
    expect(page.locator("[data-chart=queue] li")).to_have_text(["Waiting2", "qwen-13", "qwen-20"])
    tones = "items => items.map(item => item.className)"
    in_flight = page.locator("[data-chart=queue] li").evaluate_all(tones)[1:]
    assert page.locator("[data-chart=cpu] li").evaluate_all(tones) == in_flight == ["key c0", "key c1"]
    site.do(lambda: site.view.rows.update({"qwen-3": replace(ROW, id="qwen-3", cpu_percent=55.0)}))
    expect(page.locator("[data-chart=cpu] li").last).to_have_text("qwen-355 %")
    drawn = "c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(v => v)"
    assert page.locator("[data-chart=cpu] canvas").evaluate(drawn)


# ---- the log ----


def test_the_log_shows_a_new_request_and_finds_it_by_id(site: Site, visit: Visit) -> None:
    page = live(visit(site.url))
    for index in range(MAX_ROWS + 30):
        site.do(lambda index=index: site.view.finish(f"request-{index:03}"))
    site.do(lambda: site.view.finish("wanted", task="chat", worker="qwen-2"))
    rows = page.locator("#requests tbody tr")
    expect(rows.first).to_contain_text("wanted")
    expect(rows).to_have_count(MAX_ROWS)
    page.get_by_label("Find by id").fill("request-000")  # no longer among those shown
    expect(rows).to_have_count(1)
    expect(rows.first).to_contain_text("request-000")
    page.get_by_label("Find by id").fill("request-9999")
    expect(page.locator("output")).to_contain_text("No request with this id")
    page.get_by_label("Find by id").fill("")
    page.get_by_label("Filter").fill("CHAT qwen-2 ok")
    expect(rows).to_have_count(1)
    expect(page.locator("output")).to_have_text(f"1 of {MAX_ROWS + 31}")


def test_an_id_shows_both_calls_of_its_request(site: Site, visit: Visit) -> None:
    site.do(lambda: site.view.finish("both", task="sentiment"))
    site.do(lambda: site.view.finish("both", task="chat", worker="qwen-2"))
    site.do(lambda: site.view.finish("other"))
    page = live(visit(site.url))
    page.get_by_role("button", name="both").first.click()
    expect(page.locator("#requests tbody tr")).to_have_count(2)
    expect(page.get_by_label("Find by id")).to_have_value("both")


def test_a_failed_request_says_why(site: Site, visit: Visit) -> None:
    page = live(visit(site.url))
    site.do(lambda: site.view.finish("failed", error=QueueFull("full")))
    row = page.locator("#requests tbody tr").first
    expect(row).to_contain_text("queue_full")
    expect(row).to_have_attribute("data-outcome", "failed")


# ---- the buttons ----


def test_a_worker_is_taken_offline_drained_and_brought_back(site: Site, visit: Visit) -> None:
    page = live(visit(site.url))
    page.get_by_role("button", name="Maintenance qwen-2").click()
    expect(worker(page, "qwen-2").locator(".badge")).to_have_text("maintenance")
    expect(page.locator("#events tbody tr").first).to_contain_text("ready → maintenance")
    expect(page.get_by_role("button", name="Maintenance qwen-2")).to_be_hidden()
    page.get_by_role("button", name="Resume qwen-2").click()
    expect(worker(page, "qwen-2").locator(".badge")).to_have_text("up")
    page.get_by_role("button", name="Drain qwen-2").click()
    expect(worker(page, "qwen-2").locator(".badge")).to_have_text("draining")
    assert site.view.wanted == [("qwen-2", "maint", False), ("qwen-2", "ready", False), ("qwen-2", "drain", False)]


def test_the_last_worker_goes_only_when_it_is_meant(site: Site, browser: Browser) -> None:
    site.set_row("qwen-2", health="down")
    page = opened(browser, site.url)
    page.get_by_role("button", name="Maintenance qwen-1").click()
    dialog = page.get_by_role("dialog", name="This is the last worker")
    expect(dialog).to_contain_text("Without qwen-1")
    expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
    assert violations(page) == []
    dialog.get_by_role("button", name="Cancel").click()
    expect(dialog).to_be_hidden()
    assert site.view.wanted == []
    page.get_by_role("button", name="Maintenance qwen-1").click()
    dialog.get_by_role("button", name="Do it anyway").click()
    expect(worker(page, "qwen-1").locator(".badge")).to_have_text("maintenance")
    assert site.view.wanted == [("qwen-1", "maint", True)]
    page.context.close()


def test_the_keyboard_is_enough(site: Site, browser: Browser) -> None:
    site.set_row("qwen-2", health="down")
    page = opened(browser, site.url)
    button = page.get_by_role("button", name="Maintenance qwen-1")
    for _ in range(20):
        page.keyboard.press("Tab")
        if button.evaluate("node => node === document.activeElement"):
            break
    expect(button).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert site.view.wanted == []
    expect(button).to_be_focused()
    expect(button).to_be_enabled()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(worker(page, "qwen-1").locator(".badge")).to_have_text("maintenance")
    expect(page.get_by_role("button", name="Resume qwen-1")).to_be_focused()
    page.context.close()


def test_a_refusal_is_shown_in_words(site: Site, browser: Browser) -> None:
    page = opened(browser, site.url)
    site.is_silent = True
    site.view.rows.pop("qwen-2")  # gone in the meantime
    page.get_by_role("button", name="Drain qwen-2").click()
    expect(page.locator("#trouble")).to_have_text("The balancer refused: no worker has this id")
    page.context.close()


# ---- when the balancer is away ----


def test_the_page_survives_a_restart_of_the_balancer(site: Site, browser: Browser) -> None:
    site.do(lambda: site.view.finish("of the first life"))
    page = opened(browser, site.url)
    expect(page.locator("#requests tbody tr")).to_have_count(1)
    site.stop()
    expect(page.locator("#stale")).to_contain_text("No update from the balancer")
    assert violations(page) == []
    page.get_by_role("button", name="Drain qwen-2").click()
    expect(page.locator("#trouble")).to_contain_text("could not be reached")
    site.view = fresh_view()
    site.view.rows["qwen-2"] = replace(SECOND, health="suspect", why="silent for 6 s")
    site.start()
    expect(page.locator("#stale")).to_be_hidden()
    expect(worker(page, "qwen-2").locator(".badge")).to_have_text("suspect")
    expect(page.locator("#requests tbody tr")).to_have_count(0)
    site.do(lambda: site.view.finish("of the second life"))
    expect(page.locator("#requests tbody tr")).to_contain_text(["of the second life"])
    page.context.close()


def test_silence_is_shown_even_if_the_connection_stands(site: Site, visit: Visit) -> None:
    page = live(visit(site.url))
    site.is_silent = True
    expect(page.locator("#stale")).to_contain_text("No update from the balancer for 5 s")
    expect(page.locator("#live")).to_be_hidden()
    site.is_silent = False
    expect(page.locator("#stale")).to_be_hidden()


# ---- safety ----


def full_of(texts: list[str]) -> Site:
    """A balancer whose every name, sentence and id is one of `texts`."""
    rows = [replace(ROW, id=text, url=text, why=text, model=text, model_sha=text, tasks_sha=text) for text in texts]
    site = Site(FakeView(*rows, time=time.time))
    for text in texts:
        site.do(lambda text=text: site.view.finish(text, worker=text, task=text, why=text))
        site.do(lambda text=text: site.view.stats.event(text, text, text, text))
    return site


def elements_after_use(page: Page) -> list[str]:
    """The names of all elements once everything has been drawn, searched and clicked."""
    page.on("dialog", lambda dialog: pytest.fail(f"a dialog opened: {dialog.message}"))
    live(page)
    expect(page.locator("#charts canvas")).to_have_count(4)
    expect(page.locator("#charts .key")).to_have_count(4 + 2 * len(HOSTILE))  # two charts with a line for each worker
    for index in range(len(HOSTILE)):
        page.locator("#requests .id button").nth(index).click()
        expect(page.locator("#requests tbody tr")).to_have_count(1)
        page.get_by_label("Find by id").fill("")
        expect(page.locator("#requests tbody tr")).to_have_count(len(HOSTILE))
    page.get_by_role("button", name="Drain").nth(1).click()
    expect(page.locator("#workers tbody").nth(1)).to_have_attribute("data-admin", "drain")
    expect(page.locator("#events tbody tr")).to_have_count(len(HOSTILE) + 1)
    return page.evaluate("[...document.querySelectorAll('*')].map(node => node.localName).sort()")


def test_text_never_becomes_markup(visit: Visit) -> None:
    hostile, plain = full_of(HOSTILE), full_of([f"plain {index}" for index in range(len(HOSTILE))])
    try:
        page = visit(hostile.url)
        assert elements_after_use(page) == elements_after_use(visit(plain.url))
        for place in ("#workers tbody .why", "#workers tbody .name", "#requests tbody .why", "#events tbody .why"):
            expect(page.locator(place).filter(has_text="alert(1)").first).to_be_attached()
        assert page.locator("#workers tbody .why").all_inner_texts()[2:] == HOSTILE[2:]
        assert page.title() == "Balancer · Qwen All-in-One"
    finally:
        hostile.stop()
        plain.stop()


def test_the_policy_is_strict_and_nothing_breaks_it(site: Site, visit: Visit) -> None:
    page = live(visit(site.url))
    policy = page.request.get(site.url).headers["content-security-policy"]
    assert policy == "default-src 'self'"


# ---- for everybody ----


def violations(page: Page) -> list[str]:
    page.evaluate(AXE)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    return [f"{rule['id']}: {node['html'][:200]}" for rule in found for node in rule["nodes"]]


@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("locale", ["en-US", "zh-CN"])
def test_no_barriers_are_found(site: Site, visit: Visit, locale: str, scheme: str, width: int) -> None:
    shapes = [
        replace(ROW, health="demoted", why="slow"),
        replace(SECOND, admin="drain", breaker="half_open"),
        NEW,
        replace(SECOND, id="qwen-4", health="down", breaker="open", cost=None),
        replace(SECOND, id="qwen-5", admin="maint", health="suspect"),
        replace(SECOND, id="qwen-6"),
    ]
    site.view.rows = {row.id: row for row in shapes}
    for error in (None, QueueFull("full"), asyncio.CancelledError(), ValueError()):
        site.do(lambda error=error: site.view.finish("request", error=error))
    site.do(lambda: site.view.stats.event("qwen-4", "call", "up -> down", "connection refused"))
    page = live(visit(site.url, locale=locale, color_scheme=scheme, viewport={"width": width, "height": 800}))
    expect(page.locator("html")).to_have_attribute("lang", locale[:2] if locale == "en-US" else "zh-CN")
    expect(page.locator("#charts canvas")).to_have_count(4)
    assert violations(page) == []


@pytest.mark.parametrize("width", [320, 360, 768, 1024, 1280])
def test_no_width_needs_horizontal_scrolling(site: Site, visit: Visit, width: int) -> None:
    site.view.rows["qwen-2"] = replace(SECOND, why="w" * 300)
    site.do(lambda: site.view.finish("i" * 64, task="t" * 64, worker="w" * 64))
    page = live(visit(site.url, viewport={"width": width, "height": 800}))
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    expect(page.get_by_role("button", name="Maintenance qwen-1")).to_be_visible()


@pytest.mark.parametrize("width", [320, 360, 390, 414, 768, 901, 1024, 1280])
@pytest.mark.parametrize("locale", ["en-US", "zh-CN"])
def test_no_text_runs_into_another_or_out_of_its_box(site: Site, visit: Visit, locale: str, width: int) -> None:
    long_id = f"qwen-prod-01-{'very-long-' * 6}"[:64]
    stalled = {"health": "suspect", "why": "its status report stands still for 7 s", "breaker": "half_open"}
    site.view.rows[long_id] = replace(SECOND, id=long_id, url="http://[fd00:1234:5678:9abc::1234]:7861", **stalled)
    site.do(lambda: site.view.finish("i" * 64, worker=long_id, task="sentiment", error=QueueFull("full")))
    site.do(lambda: site.view.finish("short", task="chat"))
    site.do(lambda: site.view.stats.event(long_id, "report", "half_open -> closed", "it works again"))
    page = live(visit(site.url, locale=locale, viewport={"width": width, "height": 844}))
    expect(page.locator("#charts .key").first).to_be_visible()
    assert flaws(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_language_can_be_changed(site: Site, visit: Visit) -> None:
    page = live(visit(site.url))
    page.get_by_role("link", name="中文").click()
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
    expect(worker(live(page), "qwen-1").locator(".badge")).to_have_text("正常")
    site.set_row("qwen-1", health="starting", why=Reason(LOADING))
    expect(worker(page, "qwen-1").locator(".why:lang(zh)")).to_have_text("正在加载模型")
    site.set_row("qwen-1", health="down", why="connection refused")
    expect(worker(page, "qwen-1").locator(".why:lang(en)")).to_have_text("connection refused")


def test_reduced_motion_is_respected(site: Site, visit: Visit) -> None:
    page = live(visit(site.url, reduced_motion="reduce"))
    assert page.evaluate("document.getAnimations().length") == 0
