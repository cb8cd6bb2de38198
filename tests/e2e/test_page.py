"""The page in a real browser, from a real server with its strict policy; the service is a fake."""

from __future__ import annotations

import asyncio
import random
import socket
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest
import uvicorn
from fastapi import FastAPI
from playwright.sync_api import Page, expect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from qwen_aio.core import Request
from qwen_aio.errors import QueueFull
from qwen_aio.result import Decided
from qwen_aio.ui.about import About
from qwen_aio.ui.mount import CONTENT_SECURITY_POLICY, mount_page
from qwen_aio.ui.page import build_page
from tests.campaign import in_campaign
from tests.e2e.conftest import PATIENCE_MS, Visit
from tests.e2e.geometry import flaws
from tests.ui.fakes import NEGATIVE, FakeService, Step, both, done, tokens

COMPLAINT = "刚收到货,包装完好,但颜色和图片不太一样,有点小失望"
REPLY = "理解您的心情,颜色不一样可以联系客服退换。"
HOSTILE = (
    '<script>document.title="owned"</script><img src=x onerror=alert(1)> ![x](http://evil.example/x.png) ${1+1} {{x}}'
)


def script(request: Request) -> Sequence[Step]:
    """What the fake service does, by the text of the request."""
    match request.text:
        case "long":
            return both("A reply that goes on for quite a while, as some do. " * 30)
        case "endless":
            return [Decided(NEGATIVE), *tokens("once upon a time"), asyncio.Event()]
        case "full":
            return [QueueFull("8 requests wait already")]
        case "bug":
            return [ZeroDivisionError("an unforeseen bug")]
        case text if text.startswith("<script"):
            return both(text)
    if request.mode == "sentiment" and not request.reply:
        return [Decided(NEGATIVE), done(decision=NEGATIVE)]
    return both(REPLY)


@dataclass(frozen=True)
class Site:
    url: str
    service: FakeService


class Server(uvicorn.Server):
    """Signals when it is up."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_up.set()


class WithPolicy:
    """Adds the header that the worker adds."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                policy = (b"content-security-policy", CONTENT_SECURITY_POLICY.encode())
                message = {**message, "headers": [*message["headers"], policy]}
            await send(message)

        await self._app(scope, receive, send_with_policy)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    service = FakeService(script)
    app = FastAPI()
    about = About("tiny", is_bundled=True, version="0.1.0", worker="qwen-1")
    mount_page(app, build_page(service, about=lambda: about))
    config = uvicorn.Config(WithPolicy(app), log_level="error", timeout_graceful_shutdown=1)
    server, listener = Server(config), socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    assert server.is_up.wait(timeout=60)
    yield Site(f"http://127.0.0.1:{listener.getsockname()[1]}/", service)
    server.should_exit = True
    thread.join()


def send(page: Page, text: str) -> None:
    box = page.locator("#text textarea")
    box.fill(text)
    box.press("Enter")


def ready(page: Page) -> Page:
    """`page` once the tasks have arrived, with its language."""
    expect(page.locator("#mode label")).to_have_count(4, timeout=PATIENCE_MS)
    return page


def test_one_submit_fills_both_sides(site: Site, visit: Visit) -> None:
    page = ready(visit(site.url))
    send(page, COMPLAINT)
    expect(page.locator(".assistant .bubble")).to_have_text(REPLY)
    expect(page.locator(".user .bubble")).to_have_text(COMPLAINT)
    expect(page.locator(".decided")).to_contain_text("Negative")
    expect(page.locator(".decided")).to_contain_text("high confidence")
    expect(page.locator(".bars li")).to_have_count(3)
    expect(page.locator(".bars .chosen .value")).to_have_text("94.0 %")
    expect(page.locator(".merged")).to_have_text(f'【😔 LLM 情感判断:负面|高置信】→ "{REPLY}"')
    expect(page.locator(".facts")).to_contain_text("88 ms")
    expect(page.locator(".facts")).to_contain_text("Answered by")
    expect(page.locator(".facts")).to_contain_text("qwen-1")
    expect(page.locator("#text textarea")).to_have_value("")
    expect(page.locator("#about")).to_contain_text("demonstration")


def test_a_text_that_is_far_too_long_stays_in_the_box(site: Site, visit: Visit) -> None:
    page = ready(visit(site.url))
    box, long = page.locator("#text textarea"), "好" * 100_000
    expect(box).to_have_attribute("maxlength", str(len(long)))
    box.fill(long)
    page.locator("#language label").nth(1).click()  # each act brings the text along twice
    expect(page.locator("#send")).to_have_text("发送")
    page.locator("#send").click()
    expect(page.locator(".notice")).to_contain_text("8000")
    expect(box).to_have_value(long)


def test_half_of_a_surrogate_pair_leaves_a_tab_that_works(site: Site, visit: Visit) -> None:
    page = ready(visit(site.url))
    box = page.locator("#text textarea")
    box.evaluate("box => { box.value = 'x\\ud83d'; box.dispatchEvent(new Event('input', { bubbles: true })); }")
    box.press("Enter")
    expect(page.locator(".user .bubble")).to_have_text("x\ufffd")
    expect(page.locator(".assistant .bubble")).to_have_text(REPLY)
    send(page, "hello")
    expect(page.locator(".assistant .bubble")).to_have_count(2)


def test_shift_enter_starts_a_new_line(site: Site, visit: Visit) -> None:
    page = ready(visit(site.url))
    box = page.locator("#text textarea")
    box.fill("one")
    box.press("Shift+Enter")
    box.press_sequentially("two")
    expect(box).to_have_value("one\ntwo")
    expect(page.locator(".user")).to_have_count(0)


def test_stop_closes_the_stream_and_keeps_what_was_written(site: Site, visit: Visit) -> None:
    page = ready(visit(site.url))
    send(page, "endless")
    expect(page.locator(".assistant .bubble")).not_to_be_empty()
    page.locator("#text textarea").fill("typed meanwhile")
    page.locator("#stop").click()
    expect(page.locator(".notice")).to_contain_text("Stopped")
    expect(page.locator("#send")).to_be_visible()
    expect(page.locator(".assistant .bubble")).to_have_text("once upon a time")
    expect(page.locator("#text textarea")).to_have_value("typed meanwhile")
    assert site.service.num_open == 0


def test_a_closed_tab_frees_its_request(site: Site, visit: Visit) -> None:
    page = ready(visit(site.url))
    send(page, "endless")
    expect(page.locator(".decided")).to_be_visible()
    site.service.closed_early.clear()
    page.close()
    assert site.service.closed_early.wait(timeout=PATIENCE_MS / 1000)
    assert site.service.num_open == 0


def test_language_switches_without_losing_the_conversation(site: Site, visit: Visit) -> None:
    page = ready(visit(site.url))
    send(page, COMPLAINT)
    expect(page.locator(".assistant .bubble")).to_have_text(REPLY)
    page.locator("#language label", has_text="中文").click()
    expect(page.locator("#send")).to_have_text("发送")
    expect(page.locator("#mode")).to_contain_text("情感")
    expect(page.locator(".decided")).to_contain_text("负面")
    expect(page.locator(".assistant .bubble")).to_have_text(REPLY)
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
    send(page, COMPLAINT)
    expect(page.locator(".assistant .bubble")).to_have_count(2)
    assert [message.content for message in site.service.requests[-1].history] == [COMPLAINT, REPLY]


def test_a_chinese_browser_gets_a_chinese_page(site: Site, visit: Visit) -> None:
    page = ready(visit(site.url, locale="zh-CN"))
    expect(page.locator("#send")).to_have_text("发送")
    expect(page.locator("html")).to_have_attribute("lang", "zh-CN")


def test_new_conversation_forgets_everything_even_while_an_answer_runs(site: Site, visit: Visit) -> None:
    page = ready(visit(site.url))
    send(page, "endless")
    expect(page.locator(".assistant .bubble")).not_to_be_empty()
    page.locator("#new").click()
    expect(page.locator(".bubble")).to_have_count(0)
    expect(page.locator(".decided")).to_have_count(0)
    expect(page.locator("#send")).to_be_visible()
    send(page, COMPLAINT)
    expect(page.locator(".assistant .bubble")).to_have_text(REPLY)
    assert site.service.requests[-1].history == ()


def test_a_decision_alone_leaves_the_conversation_empty(site: Site, visit: Visit) -> None:
    page = ready(visit(site.url))
    page.locator("#mode label", has_text="Sentiment").click()
    page.locator("#enhance input").uncheck()
    send(page, COMPLAINT)
    expect(page.locator(".facts")).to_be_visible()
    expect(page.locator(".decided")).to_contain_text("Negative")
    expect(page.locator(".bubble")).to_have_count(0)


def test_examples_can_be_clicked(site: Site, visit: Visit) -> None:
    page = ready(visit(site.url))
    page.locator(".example", has_text="失望").click()
    expect(page.locator(".user .bubble")).to_have_text(COMPLAINT)
    expect(page.locator(".assistant .bubble")).to_have_text(REPLY)


def test_errors_are_sentences_and_the_text_comes_back(site: Site, visit: Visit) -> None:
    page = ready(visit(site.url))
    send(page, "full")
    expect(page.locator(".notice.error")).to_contain_text("Many people are asking")
    expect(page.locator("#text textarea")).to_have_value("full")
    expect(page.locator(".bubble")).to_have_count(0)
    expect(page.locator("#send")).to_be_visible()


def test_a_bug_is_a_sentence_too(site: Site, visit: Visit) -> None:
    page = ready(visit(site.url))
    send(page, "bug")
    expect(page.locator(".notice.error")).to_contain_text("Something went wrong inside")
    expect(page.locator("body")).not_to_contain_text("an unforeseen bug")
    send(page, COMPLAINT)
    expect(page.locator(".assistant .bubble")).to_have_text(REPLY)


def test_text_never_becomes_markup(site: Site, visit: Visit) -> None:
    page = ready(visit(site.url))
    send(page, HOSTILE)
    expect(page.locator(".assistant .bubble")).to_have_text(HOSTILE)
    expect(page.locator(".user .bubble")).to_have_text(HOSTILE)
    expect(page.locator(".merged")).to_contain_text(HOSTILE)
    expect(page.locator(".decision img, .messages img, .messages script, .messages a")).to_have_count(0)
    assert page.title() == "Qwen All-in-One"


def test_a_message_can_be_copied(site: Site, visit: Visit) -> None:
    page = ready(visit(site.url, permissions=["clipboard-read", "clipboard-write"]))
    send(page, COMPLAINT)
    expect(page.locator(".facts")).to_be_visible()
    page.locator(".assistant .copy").click()
    expect(page.locator(".assistant .copy")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == REPLY


def test_two_visitors_see_only_their_own_conversation(site: Site, visit: Visit) -> None:
    first, second = ready(visit(site.url)), ready(visit(site.url))
    send(first, "endless")
    expect(first.locator(".assistant .bubble")).not_to_be_empty()
    send(second, COMPLAINT)  # is answered while the first still runs
    expect(second.locator(".assistant .bubble")).to_have_text(REPLY)
    expect(first.locator(".user .bubble")).to_have_text("endless")
    expect(second.locator(".user .bubble")).to_have_text(COMPLAINT)
    first.locator("#stop").click()
    expect(first.locator("#send")).to_be_visible()


@pytest.mark.parametrize("width", [320, 375, 768])
def test_no_width_needs_horizontal_scrolling(site: Site, visit: Visit, width: int) -> None:
    page = ready(visit(site.url, viewport={"width": width, "height": 812}))
    send(page, COMPLAINT + "w" * 300)
    expect(page.locator(".facts")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    left, right = page.locator("#left").bounding_box(), page.locator("#right").bounding_box()
    assert left and right
    assert (right["y"] >= left["y"] + left["height"]) == (width < 760)


PHONES = [(320, 568), (360, 640), (390, 844), (390, 664), (414, 896)]
SOFT_KEYBOARD = (390, 420)
WHERE = """() => {
    const box = (selector) => document.querySelector(selector).getBoundingClientRect();
    const last = [...document.querySelectorAll(".bubble")].at(-1)?.getBoundingClientRect();
    return {
        lastEnds: last?.bottom, shownFrom: box("#conversation").top, shownTo: box("#conversation").bottom,
        rightEnds: box("#right").bottom, composer: box("#composer").top, composerEnds: box("#composer").bottom,
        contentEnds: box("#about").bottom + scrollY, height: document.documentElement.scrollHeight,
    };
}"""


@pytest.mark.parametrize(
    ("locale", "size"),
    [
        *(("en-US", size) for size in (*PHONES, SOFT_KEYBOARD, (1280, 800))),
        *(("zh-CN", size) for size in (PHONES[0], PHONES[-1])),
        *in_campaign(("en-US", (768, 1024)), *(("zh-CN", size) for size in (*PHONES[1:-1], (768, 1024), (1280, 800)))),
    ],
)
def test_the_last_message_is_in_sight_above_the_input_and_nothing_is_empty_below(
    site: Site, visit: Visit, locale: str, size: tuple[int, int]
) -> None:
    width, height = size
    page = ready(visit(site.url, locale=locale, viewport={"width": width, "height": height}))
    assert flaws(page) == []
    for count, text in enumerate((COMPLAINT, "long", COMPLAINT, "long"), start=1):
        assert_page_is_filled(page, height)
        send(page, text)
        expect(page.locator(".assistant .bubble")).to_have_count(count)
        expect(page.locator(".facts")).to_be_visible()
        expect(page.locator("#send")).to_be_visible()
    if width < 760:  # beside each other, the facts stay in sight over what scrolls beneath them
        assert flaws(page) == []
    page.wait_for_function(f"() => {{ const where = ({WHERE})(); return where.lastEnds <= where.shownTo + 1; }}")
    where = assert_page_is_filled(page, height)
    assert where["shownFrom"] < where["lastEnds"]
    assert where["shownTo"] - where["shownFrom"] >= 130
    assert where["shownTo"] <= where["rightEnds"] <= where["composer"]
    if (width, height) in PHONES[1:]:
        assert where["composerEnds"] <= height  # the whole conversation is had without scrolling the page


GROW = """async (top) => {
    const box = document.querySelector("#conversation .bubble").closest(".messages").parentElement.parentElement;
    const frame = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
    if (top !== null) box.scrollTop = top;
    await frame();
    box.querySelector(".assistant .bubble").append("more ".repeat(500));
    await frame();
    return [box.scrollTop, box.scrollHeight - box.scrollTop - box.clientHeight];
}"""


def test_growing_text_is_followed_unless_the_visitor_has_scrolled_up(site: Site, visit: Visit) -> None:
    page = ready(visit(site.url))
    send(page, "long")
    expect(page.locator(".assistant .bubble")).to_have_count(1)
    assert page.evaluate(GROW, None)[1] < 48
    assert page.evaluate(GROW, 40)[0] == 40
    assert page.evaluate(GROW, 10**6)[1] < 48
    page.set_viewport_size({"width": 1280, "height": 560})
    assert page.evaluate(GROW, None)[1] < 48


def assert_page_is_filled(page: Page, height: int) -> dict[str, float]:
    where: dict[str, float] = page.evaluate(WHERE)
    assert where["height"] - max(where["contentEnds"], height) <= 24
    return where


def test_the_page_can_be_used_without_seeing_it(site: Site, visit: Visit) -> None:
    page = ready(visit(site.url))
    expect(page.get_by_role("heading", level=1)).to_have_text("Qwen All-in-One")
    expect(page.get_by_role("group", name="Task")).to_be_visible()
    expect(page.get_by_role("textbox", name="Your message")).to_be_visible()
    expect(page.get_by_role("checkbox", name="Decision and answer together")).to_be_checked()
    expect(page.get_by_role("log", name="Conversation")).to_be_visible()
    send(page, COMPLAINT)
    expect(page.get_by_role("list", name="All labels").get_by_role("listitem")).to_have_count(3)
    expect(page.locator("[aria-live=polite]").get_by_text("Negative")).to_have_count(2)


@pytest.mark.parametrize(
    "path",
    ["gradio_api/upload", "gradio_api/file=/etc/passwd", "gradio_api/info", "monitoring", "gradio_api/vibe-code/"],
)
def test_nothing_else_of_gradio_is_in_reach(site: Site, visit: Visit, path: str) -> None:
    page = ready(visit(site.url))
    assert page.request.get(site.url + path).status == 404
    assert page.request.post(site.url + path, multipart={"files": "x"}).status == 404


def test_no_other_origin_is_given_permissions(site: Site, visit: Visit) -> None:
    page = ready(visit(site.url))
    reply = page.request.get(site.url + "theme.css", headers={"Origin": "http://localhost:1"})
    assert reply.ok
    assert [name for name in reply.headers if name.startswith("access-control")] == []


def choose(page: Page, content: bytes, name: str = "reviews.csv") -> None:
    """Open the second tab and choose a file there."""
    page.get_by_role("tab").nth(1).click()
    page.set_input_files("#chosen-file", {"name": name, "mimeType": "text/csv", "buffer": content})


REVIEWS = "text,label\n很差,负面\n一般,中性\n坏了,负面\n".encode("gb18030")


def test_a_file_of_rows_is_judged_and_saved(site: Site, visit: Visit) -> None:
    page = ready(visit(site.url))
    choose(page, REVIEWS)
    expect(page.locator("#file-progress")).to_have_text("Rows: 3, columns: 2")
    expect(page.locator("#text-column input")).to_have_value("text")
    expect(page.locator("#truth-column input")).to_have_value("label")
    page.locator("#label-rows").click()
    expect(page.locator(".outcome h2")).to_contain_text("3 rows")
    expect(page.locator(".outcome dl")).to_contain_text("Negative")
    expect(page.locator("#share-decided .value")).to_have_text("100.0 % (3 / 3)")
    expect(page.locator("#share-right .value")).to_have_text("66.7 % (2 / 3)")
    page.locator("#threshold").fill("0.95")
    expect(page.locator("#least")).to_have_text("0.95")
    expect(page.locator("#share-decided .value")).to_have_text("0.0 % (0 / 3)")
    expect(page.locator("#share-right .value")).to_have_text("– (0 / 0)")
    report = page.frame_locator(".outcome iframe")
    expect(report.get_by_role("heading", level=1)).to_have_text("Evaluation: reviews.csv")
    with page.expect_download() as labelled:
        page.get_by_role("button", name="Save the rows").click()
    assert labelled.value.suggested_filename == "reviews-sentiment.csv"
    lines = labelled.value.path().read_text(encoding="utf-8-sig").splitlines()
    assert lines[0] == "text,label,sentiment_label,probability,confidence,error"
    assert lines[1].startswith("很差,负面,negative,0.94")
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save the report").click()
    assert "<h1>Evaluation: reviews.csv</h1>" in saved.value.path().read_text(encoding="utf-8")


def test_a_file_without_labels_is_labelled_in_chinese(site: Site, visit: Visit) -> None:
    page = ready(visit(site.url, locale="zh-CN"))
    choose(page, b"id,review\n1,bad\n2,worse\n")
    expect(page.locator("#text-column input")).to_have_value("review")
    page.locator("#label-rows").click()
    expect(page.locator(".outcome h2")).to_contain_text("2 行")
    expect(page.locator(".outcome")).to_contain_text("负面")
    expect(page.locator("#share-decided .value")).to_have_text("100.0 % (2 / 2)")
    expect(page.locator("#share-right, .outcome iframe")).to_have_count(0)


def test_a_long_file_can_be_stopped_beside_a_conversation(site: Site, visit: Visit) -> None:
    page = ready(visit(site.url))
    choose(page, b"text\nbad\nendless\nbad\n")
    page.locator("#label-rows").click()
    expect(page.locator("#file-progress progress")).to_be_visible()
    page.get_by_role("tab").nth(0).click()
    send(page, COMPLAINT)
    expect(page.locator(".assistant .bubble")).to_have_text(REPLY)
    page.get_by_role("tab").nth(1).click()
    page.locator("#stop-rows").click()
    expect(page.locator("#file-notices .notice")).to_contain_text("first rows: 1")
    expect(page.locator("#label-rows")).to_be_enabled()
    expect(page.locator("#share-decided .value")).to_have_text("100.0 % (1 / 1)")
    assert site.service.num_open == 0


def test_a_closed_tab_ends_its_file(site: Site, visit: Visit) -> None:
    page = ready(visit(site.url))
    choose(page, b"text\nendless\n")
    page.locator("#label-rows").click()
    expect(page.locator("#file-progress progress")).to_be_visible()
    site.service.closed_early.clear()
    page.close()
    assert site.service.closed_early.wait(timeout=PATIENCE_MS / 1000)
    assert site.service.num_open == 0


@pytest.mark.parametrize(
    ("content", "name", "why"),
    [
        (b"PK\x03\x04", "book.xlsx", "save the sheet as CSV"),
        (b"text\n" + b"x\n" * 2001, "long.csv", "more than 2000 rows"),
        (b"text\n" + b"x" * 4_000_001, "large.csv", "4 MB at most"),
        (random.Random(1).randbytes(2_000_000), "noise.csv", "compressed, it is still larger"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_a_sentence(
    site: Site, visit: Visit, content: bytes, name: str, why: str
) -> None:
    page = ready(visit(site.url))
    choose(page, content, name)
    expect(page.locator("#file-notices .error")).to_contain_text(why)
    expect(page.locator("#label-rows")).to_be_disabled()
    page.set_input_files("#chosen-file", {"name": "b.csv", "mimeType": "text/csv", "buffer": REVIEWS})
    expect(page.locator("#label-rows")).to_be_enabled()
    expect(page.locator("#file-notices .error")).to_have_count(0)


def test_two_thousand_long_rows_fit_a_request(site: Site, visit: Visit) -> None:
    words = random.Random(1)
    texts = ("".join(words.choices("的一是不了人我在有他这为之大来以个中上们", k=140)) for _ in range(2000))
    page = ready(visit(site.url))
    choose(page, ("text\n" + "\n".join(texts)).encode())
    expect(page.locator("#file-progress")).to_have_text("Rows: 2000, columns: 1")


@pytest.mark.parametrize(
    ("locale", "width"),
    [("en-US", 320), ("zh-CN", 390), ("en-US", 768), *in_campaign(("zh-CN", 320), ("zh-CN", 768), ("en-US", 1280))],
)
def test_the_second_tab_fits_every_width(site: Site, visit: Visit, locale: str, width: int) -> None:
    page = ready(visit(site.url, locale=locale, viewport={"width": width, "height": 812}))
    choose(page, ("text,label\n" + "w" * 300 + ",负面\n").encode(), "w" * 90 + ".csv")
    page.locator("#label-rows").click()
    expect(page.locator(".outcome iframe")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert flaws(page) == []
