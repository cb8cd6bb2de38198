"""`python app.py`, the bundled model and a real browser: what a newcomer sees."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.conftest import Visit
from tests.e2e.processes import App, running

STORY = "刚收到货,包装完好,但颜色和图片不太一样,有点小失望"


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    with running(tmp_path_factory.mktemp("home")) as app:
        yield app


@pytest.fixture
def page(single: App, visit: Visit) -> Page:
    page = visit(single.url)
    expect(page.locator("#mode label")).to_have_count(4)
    return page


def send(page: Page, text: str) -> None:
    box = page.locator("#text textarea")
    box.fill(text)
    box.press("Enter")


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("快递太慢了,差评!", "Negative"),
        ("客服态度超好,必须点赞!", "Positive"),
        ("这破手机,充一次电只能用3小时,气死我了!", "Negative"),
        (STORY, "Negative"),
    ],
)
def test_the_published_examples_fill_both_sides(page, text, label):
    send(page, text)
    expect(page.locator(".decided")).to_contain_text(label)
    expect(page.locator(".assistant .bubble")).to_have_text(re.compile(r"\S{4,}"))
    expect(page.locator(".merged")).to_have_text(re.compile(r"^【.* LLM 情感判断:..\|.置信】→ \".+\"$"))
    expect(page.locator("#send")).to_be_visible()


def test_two_people_have_two_conversations(single, visit):
    first, second = visit(single.url), visit(single.url, locale="zh-CN")
    for page in (first, second):
        expect(page.locator("#mode label")).to_have_count(4)
    send(first, "你好")
    send(second, "谢谢你")
    for page, own in ((first, "你好"), (second, "谢谢你")):
        expect(page.locator(".user .bubble")).to_have_text([own])
        expect(page.locator("#send")).to_be_visible()


def test_the_page_says_that_the_model_is_a_demonstration(page):
    expect(page.locator("#about")).to_contain_text("qwen-aio-bundled")
    expect(page.locator("#about")).to_contain_text("demonstration")


def test_v1_works_on_the_same_port(single):
    status, body = single.post("/v1/run", {"text": "太棒了", "mode": "sentiment"})
    assert (status, body["label"]) == (200, "positive")
    assert single.get("/health")[0] == 200


def test_a_foreign_host_is_refused_on_the_page_too(single):
    status, body = single.get("/", headers={"Host": "evil.example"})
    assert (status, body["error"]["code"]) == (400, "host_refused")
