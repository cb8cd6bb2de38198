"""The dashboard over HTTP: first paint, figures as JSON, stream, buttons, files."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from contextlib import asynccontextmanager
from dataclasses import fields, replace
from html.parser import HTMLParser
from inspect import getmembers_static
from pathlib import Path
from string import Formatter
from typing import get_args

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.routing import Route

from qwen_aio.balancer.dashboard import cells
from qwen_aio.balancer.dashboard.files import FOLDER
from qwen_aio.balancer.dashboard.page import MAX_ROWS, Page
from qwen_aio.balancer.dashboard.routes import EventsRoute, dashboard_routes
from qwen_aio.balancer.dashboard.strings import CHINESE, ENGLISH, STRINGS, DashboardStrings
from qwen_aio.balancer.reasons import LOADING, Reason
from qwen_aio.balancer.snapshot import AdminState, BreakerState, HealthState, RequestOutcome, ServiceState
from qwen_aio.errors import InvalidRequest, QueueFull
from qwen_aio.language import Both, language_for
from qwen_aio.serving.admission import AdmissionGate
from qwen_aio.serving.app import create_app
from qwen_aio.serving.health_routes import Health
from qwen_aio.serving.sse import StreamTimes
from qwen_aio.wire.admin import AdminRequest
from tests.asking import check_refusal, sse
from tests.balancer.fake_view import NEW, ROW, SECOND, FakeView

HOSTILE = [
    "<script>alert(1)</script>",
    '<img src=x onerror="alert(1)">',
    "</td></table><iframe src=//evil.example>",
    '" onmouseover="alert(1)',
    "' autofocus onfocus='alert(1)",
    "<svg/onload=alert(1)>",
    "${alert(1)} {{constructor}} {% raw %} {worker}",
    "&lt;b&gt; &amp;",
    "<!-- <style>*{display:none}</style>",
    "</template></body>",
]


@asynccontextmanager
async def calling(view: FakeView):
    """An HTTP client of the dashboard without a socket; for what ends by itself."""
    app = create_app(AdmissionGate(), routes=dashboard_routes(view), health=lambda: Health({}, None))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


class Reader(HTMLParser):
    """Reads a page as a browser does: tags, inline handlers and styles, text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.inline: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.inline += [name for name, _ in attrs if name.startswith("on") or name == "style"]
        if tag == "script" and "src" not in dict(attrs):
            self.inline.append("script")

    def handle_data(self, data: str) -> None:
        self.text += data


def painted(view: FakeView, language: str = "en") -> Reader:
    return Reader(Page().render(view.snapshot(), view.stats.history(), STRINGS[language]))


# ---- the page ----


async def test_the_first_paint_is_complete():
    view = FakeView(ROW, replace(SECOND, health="down", why="connection refused", breaker="open", cost=None), NEW)
    view.finish("request-1")
    view.finish("request-2", task="chat", error=QueueFull("full"))
    view.stats.event("qwen-2", "call", "up -> down", "connection refused")
    async with calling(view) as client:
        response = await client.get("/")
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert response.headers["content-security-policy"] == "default-src 'self'"
    assert response.headers["cache-control"] == "no-store"
    assert "<noscript>" in response.text and "Scripts are off" in response.text
    page = Reader(response.text)
    for shown in ("qwen-1", "127.0.0.1:7861", "up", "3 / 8", "93 %", "± 4.2", "322 ms", "1.25 s", "61 ms", "24.1"):
        assert shown in page.text
    for shown in ("812 MB", "2 h 13 min", "0.010 s", "× 1.04 jitter", "01234567", "fedcba98", "4242 #3", "1,234"):
        assert shown in page.text
    for shown in (
        "down",
        "connection refused",
        "open",
        "starting",
        "gets no requests now",
        "degraded",
        "1 / 3",
        "2 (1.2 s)",
    ):
        assert shown in page.text
    for shown in (
        "request-1",
        "request-2",
        "queue_full",
        "failed",
        "cost 0.010: queue",
        "up → down",
        "0.1.0",
        "weighted",
    ):
        assert shown in page.text


@pytest.mark.parametrize(
    ("refused", "shown"),
    [
        ([0], "0"),
        ([0, 0, 0], "0"),
        ([1, 0, 2000], "2,001"),
        ([None, None], "not counted"),
        ([3, None], "3 + not counted"),
    ],
)
def test_refused_egress_is_added_up_and_what_nobody_counts_is_no_zero(refused, shown):
    assert cells.egress(refused, STRINGS["en"]) == shown


def test_nothing_in_the_page_is_inline():
    assert painted(FakeView()).inline == []


@pytest.mark.parametrize("text", HOSTILE)
def test_what_comes_from_elsewhere_stays_text(text):
    texts = ("id", "url", "why", "model", "model_sha", "precision", "tasks_sha", "health", "admin")
    row = replace(ROW, **dict.fromkeys(texts, text))
    view = FakeView(row)
    view.finish(text, worker=text, task=text, why=text)
    view.stats.event(text, text, text, text)
    page = painted(view)
    assert page.tags == painted(FakeView()).tags
    assert page.inline == []
    assert page.text.count(text) >= 10


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=80))
def test_any_sentence_is_shown_as_it_is(text):
    page = painted(FakeView(replace(ROW, why=text)))
    assert page.tags == painted(FakeView()).tags
    assert text in page.text


def test_a_long_log_is_shown_in_part_and_the_newest_first():
    view = FakeView()
    for index in range(MAX_ROWS + 50):
        view.finish(f"request-{index:04}")
    ids = re.findall(r"request-\d{4}", painted(view).text)
    assert ids == [f"request-{index:04}" for index in range(MAX_ROWS + 49, 49, -1)]


async def test_the_page_speaks_the_language_that_is_asked_for():
    async with calling(FakeView()) as client:
        plain = await client.get("/")
        browser = await client.get("/", headers={"Accept-Language": "zh-CN,zh;q=0.9"})
        chosen = await client.get("/?lang=en", headers={"Accept-Language": "zh-CN"})
    assert '<html lang="en">' in plain.text and "Workers ready" in plain.text
    assert '<html lang="zh-CN">' in browser.text and "可用实例" in browser.text
    assert '<html lang="en">' in chosen.text
    assert plain.headers["vary"] == "Accept-Language"


# ---- figures ----


async def test_the_snapshot_is_there_as_json():
    view = FakeView(ROW, NEW)
    async with calling(view) as client:
        reply = (await client.get("/status")).json()
    assert reply["state"] == "degraded" and reply["ready"] == 1
    worker = reply["workers"][0]
    assert worker["latency_ms_last5"] == [88.0, 91.4, 102.0, 80.0, 1250.0]
    assert worker["cost"]["total"] == 0.0104
    assert set(worker) == {field.name for field in fields(ROW)}
    assert reply["workers"][1]["cost"] is None


async def test_the_history_is_there_as_json():
    view = FakeView()
    view.finish("a")
    view.stats.event("qwen-1", "clock", "up -> suspect", "silent for 6 s")
    async with calling(view) as client:
        reply = (await client.get("/history")).json()
    assert [row["id"] for row in reply["requests"]] == ["a"]
    assert [row["change"] for row in reply["events"]] == ["up -> suspect"]
    assert reply["moments"] == []


# ---- the stream ----


class StreamClient:
    """Reads /events through ASGI, so that a disconnect happens at a known moment."""

    def __init__(
        self, view: FakeView, *, language: str = "en", times: StreamTimes | None = None, is_admitted=lambda: True
    ) -> None:
        self._route = EventsRoute(view.stats, times=times or StreamTimes())
        self._disconnected = asyncio.Event()
        self.sent: asyncio.Queue[dict] = asyncio.Queue()
        self.can_read = asyncio.Event()
        self.can_read.set()
        scope = {
            "type": "http",
            "method": "GET",
            "headers": [],
            "query_string": f"lang={language}".encode(),
            "state": {"request_id": "r", "is_admitted": is_admitted},
        }
        self.serving = asyncio.ensure_future(self._route(scope, self._receive, self._send))

    def disconnect(self) -> None:
        self._disconnected.set()

    async def next_events(self) -> list[tuple[str, dict]]:
        while True:
            message = await self.sent.get()
            if message.get("body"):
                return sse(message["body"].decode())

    async def _receive(self) -> dict:
        await self._disconnected.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict) -> None:
        await self.can_read.wait()
        self.sent.put_nowait(message)


async def test_the_stream_begins_with_everything_and_goes_on_with_news():
    view = FakeView()
    view.finish("before")
    view.tick()
    client = StreamClient(view)
    (history, snapshot) = await client.next_events()
    assert history[0] == "history" and [row["id"] for row in history[1]["requests"]] == ["before"]
    assert snapshot[0] == "snapshot" and snapshot[1]["workers"][0]["id"] == "qwen-1"
    view.finish("after")
    ((name, row),) = await client.next_events()
    assert (name, row["id"], row["outcome"]) == ("request", "after", "ok")
    view.stats.event("qwen-1", "person", "ready -> maint", "line\nbreak\r\n\ndata: x")
    ((name, row),) = await client.next_events()
    assert (name, row["why"]) == ("event", "line\nbreak\r\n\ndata: x")
    client.disconnect()
    await client.serving


async def test_the_stream_ends_with_the_key_that_opened_it():
    view, keys = FakeView(), ["alice"]
    client = StreamClient(view, is_admitted=lambda: "alice" in keys)
    await client.next_events()
    view.tick()
    await client.next_events()
    keys.clear()
    view.tick()  # at most this is sent any more
    await client.serving
    assert view.stats.num_subscribers == 0


async def test_the_stream_has_the_texts_of_the_cells_in_the_language_of_the_page():
    view = FakeView(replace(ROW, why=Reason(LOADING), health="starting"))
    view.tick()
    client = StreamClient(view, language="zh-CN")
    (_, snapshot) = await client.next_events()
    row = snapshot[1]["workers"][0]
    assert (row["state_word"], row["why"], row["why_lang"]) == ("启动中", "正在加载模型", "zh-CN")
    assert (row["tokens"], row["uptime"], row["cpu_width"]) == ("24.1", "2 h 13 min", "93.1")
    assert snapshot[1]["summary"]["waiting"] == "2 (1.2 s)"
    client.disconnect()
    await client.serving


async def test_a_client_that_disconnects_is_no_subscriber_any_more():
    view = FakeView()
    client = StreamClient(view)
    await client.next_events()
    assert view.stats.num_subscribers == 1
    client.disconnect()
    await client.serving
    assert view.stats.num_subscribers == 0


async def test_closing_the_stats_ends_every_stream():
    view = FakeView()
    clients = [StreamClient(view) for _ in range(5)]
    for client in clients:
        await client.next_events()
    view.stats.close()
    await asyncio.gather(*(client.serving for client in clients))
    assert view.stats.num_subscribers == 0


async def test_closed_stats_refuse_new_streams():
    view = FakeView()
    view.stats.close()
    async with calling(view) as client:
        check_refusal(await client.get("/events"), 503, "draining")


async def test_a_silent_stream_gets_a_comment():
    client = StreamClient(FakeView(), times=StreamTimes(keep_alive_s=0.01))
    await client.next_events()
    assert (await client.sent.get())["body"] == b": still here\n\n"
    client.disconnect()
    await client.serving


async def test_a_client_that_reads_nothing_is_disconnected():
    view = FakeView()
    client = StreamClient(view, times=StreamTimes(patience_s=0.01))
    await client.next_events()
    client.can_read.clear()
    view.finish("never read")
    await client.serving
    assert view.stats.num_subscribers == 0


async def test_asking_only_for_the_head_opens_no_stream():
    view = FakeView()
    async with calling(view) as client:
        response = await client.head("/events")
    assert response.headers["content-type"].startswith("text/event-stream")
    assert view.stats.num_subscribers == 0


# ---- the buttons ----


async def test_a_button_sets_the_state_and_shows_it():
    view = FakeView()
    async with calling(view) as client:
        response = await client.post("/admin/workers/qwen-2", json={"state": "maint"})
    assert response.json()["workers"][1]["admin"] == "maint"
    assert view.wanted == [("qwen-2", "maint", False)]


async def test_the_last_worker_needs_force():
    view = FakeView(ROW)
    async with calling(view) as client:
        check_refusal(await client.post("/admin/workers/qwen-1", json={"state": "drain"}), 409, "last_worker")
        assert (await client.post("/admin/workers/qwen-1", json={"state": "drain", "force": True})).status_code == 200
    assert view.wanted == [("qwen-1", "drain", True)]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b'{"state": "off"}',
        b'{"state": null}',
        b'{"state": ["maint"]}',
        b'{"state": "maint", "force": 1}',
        b'{"state": "maint", "force": null}',
        b'{"state": "maint", "force": "true"}',
        b'{"state": "maint", "more": 1}',
        b'{"state": "maint", "state": "ready"}',
        b'{"state": "maint"',
        b'{"state": NaN}',
        b'{"state": "\\ud800"}',
        b"\xff",
        b'{"a":' * 10_000,
    ],
)
async def test_an_invalid_body_changes_nothing(body):
    view = FakeView()
    async with calling(view) as client:
        response = await client.post(
            "/admin/workers/qwen-1", content=body, headers={"Content-Type": "application/json"}
        )
    check_refusal(response, 400, "invalid_request")
    assert view.wanted == []


def test_a_refusal_of_the_wire_names_the_field():
    with pytest.raises(InvalidRequest, match="force: input should be a valid boolean, not 1") as caught:
        AdminRequest.read(b'{"state": "maint", "force": 1}')
    assert caught.value.param == "force"


async def test_unknown_workers_pages_of_others_and_other_methods_change_nothing():
    view = FakeView()
    wanted = {"state": "maint"}
    async with calling(view) as client:
        check_refusal(await client.post("/admin/workers/qwen-9", json=wanted), 404, "unknown_worker")
        foreign = await client.post("/admin/workers/qwen-1", json=wanted, headers={"Origin": "http://evil.example"})
        check_refusal(foreign, 403, "origin_refused")
        check_refusal(await client.get("/admin/workers/qwen-1?state=maint"), 405, "method_not_allowed")
        form = await client.post("/admin/workers/qwen-1", data=wanted)
        check_refusal(form, 415, "unsupported_media")
        check_refusal(await client.post("/status", json=wanted), 405, "method_not_allowed")
    assert view.wanted == []


# ---- files ----


async def test_files_are_served_with_their_kind_and_not_sent_twice():
    media = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}
    names = [path.name for path in FOLDER.iterdir()]
    assert {"dashboard.js", "dashboard.css", "uplot.js", "uplot.css"} <= set(names)
    async with calling(FakeView()) as client:
        for name in names:
            response = await client.get(f"/static/{name}")
            assert response.headers["content-type"] == media[Path(name).suffix]
            assert response.content == (FOLDER / name).read_bytes()
            again = await client.get(f"/static/{name}", headers={"If-None-Match": response.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    "name", ["nothing.js", "..%2froutes.py", "%2e%2e%2froutes.py", "..%5croutes.py", "CON", "%2fetc%2fpasswd", "a%00b"]
)
async def test_no_other_file_is_in_reach(name):
    async with calling(FakeView()) as client:
        check_refusal(await client.get(f"/static/{name}"), 404, "unknown_path")


def test_the_page_asks_only_for_files_there_are_and_by_relative_addresses():
    html = Page().render(FakeView().snapshot(), FakeView().stats.history(), ENGLISH)
    asked = set(re.findall(r'(?:src|href)="([^"?]+)"', html))
    assert not [path for path in asked if path.startswith("/")]
    paths = {route.path for route in dashboard_routes(FakeView()) if isinstance(route, Route)}
    assert {f"/{path}" for path in asked if not (FOLDER / path.removeprefix("static/")).is_file()} <= paths
    modules = {path.name for path in FOLDER.glob("*.js")} - {"uplot.js"}
    imported = set(re.findall(r'from "\./([^"]+)"', "".join((FOLDER / name).read_text() for name in modules)))
    assert imported <= modules


def test_vendored_files_are_unchanged():
    page = FOLDER.with_name("VENDORED.md").read_text()
    reply = dict(re.findall(r"^\| (\S+) \|.*\| ([0-9a-f]{64}) \|$", page, re.MULTILINE))
    assert reply == {
        name: hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() for name in ("uplot.js", "uplot.css")
    }
    assert "The MIT License" in page and "Leon Sorokin" in page


# ---- words ----


def flat(strings: DashboardStrings) -> dict[str, str]:
    """Every sentence by a name, also those in the table of words."""
    tables = ("words", "reasons")
    entries = [name for name, value in getmembers_static(strings) if isinstance(value, Both)]
    named = {name: getattr(strings, name) for name in entries if name not in tables}
    return named | {f"words.{name}": word for name, word in strings.words.items()}


def test_both_languages_have_the_same_sentences_with_the_same_blanks():
    english, chinese = flat(ENGLISH), flat(CHINESE)
    assert english.keys() == chinese.keys()
    for name in english:
        assert english[name].strip() and chinese[name].strip(), name
        blanks = [
            {blank for _, blank, _, _ in Formatter().parse(text) if blank} for text in (english[name], chinese[name])
        ]
        assert blanks[0] == blanks[1], name


def test_every_state_has_a_word():
    states = [AdminState, BreakerState, RequestOutcome, ServiceState, HealthState]
    for strings in STRINGS.values():
        assert {name for kind in states for name in get_args(kind)} <= strings.words.keys()


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ("up -> suspect", "正常 → 可疑"),
        ("breaker closed -> half_open", "熔断器 闭合 → 半开"),
        ("record stands still", "状态报告停滞"),
        ("something new", "something new"),
    ],
)
def test_changes_are_shown_in_the_language_of_the_page(change, shown):
    assert CHINESE.change_of(change) == shown


@pytest.mark.parametrize(
    ("wanted", "header", "language"),
    [
        ("", "", "en"),
        ("", "zh-CN,zh;q=0.9", "zh"),
        ("", "fr-FR, zh-TW;q=0.5, en;q=0.3", "zh"),
        ("zh", "en-US", "zh"),
        ("en", "zh-CN", "en"),
        ("xx", "zh-CN", "zh"),
        ("<script>", ";;,,", "en"),
    ],
)
def test_the_first_language_we_speak_is_taken(wanted, header, language):
    assert language_for(header, wanted=wanted) == language


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "–"),
        (0.4, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3600, "1 h 0 min"),
        (8000, "2 h 13 min"),
        (200_000, "2 d 7 h"),
    ],
)
def test_long_times_are_shown_in_their_largest_units(seconds, shown):
    assert cells.span(seconds) == shown


@pytest.mark.parametrize(
    ("milliseconds", "shown"), [(None, "–"), (0.4, "0 ms"), (88.2, "88 ms"), (1250, "1.25 s"), (61_000, "61.0 s")]
)
def test_short_times_are_short(milliseconds, shown):
    assert cells.milliseconds(milliseconds) == shown


def test_bars_stay_within_their_frame():
    wild = replace(ROW, cpu_percent=250.0, in_flight=9, capacity=8, latency_ms_last5=(0.0, 1e9))
    shown = cells.worker_cells(wild, ENGLISH)
    assert (shown["cpu_width"], shown["in_flight_width"]) == ("100.0", "100.0")
    assert [shown[f"bar{index}"] for index in range(5)] == ["0.0", "16.0", "0.0", "0.0", "0.0"]
    assert json.loads(json.dumps(shown)) == shown
