"""What a browser says that its tab shows."""

from __future__ import annotations

import json

import pytest

from qwen_aio.ui.tab import TabState
from qwen_aio.ui.view import MAX_EXCHANGES, Exchange, Notice, View

INTERRUPTED = (Notice("interrupted"),)


def test_what_the_script_writes_is_read() -> None:
    said = {
        "language": "zh",
        "mode": "chat",
        "is_enhanced": False,
        "draft": "好",
        "exchanges": [["你好", "你好!"]],
        "is_running": False,
    }
    tab = TabState.read(json.dumps(said))
    assert tab.model_dump() == {**said, "exchanges": (("你好", "你好!"),)}
    assert tab.view() == View((Exchange("你好", "你好!"),), draft="好")


@pytest.mark.parametrize(
    "said",
    [
        "",
        "null",
        "[]",
        "{",
        '{"language": "fr"}',
        '{"mode": 1}',
        '{"exchanges": [["a"]]}',
        '{"exchanges": [["a", null]]}',
        '{"draft": "\\ud800"}',
        "[" * 100_000,
        "\x00",
    ],
)
def test_anything_else_is_a_new_tab(said: str) -> None:
    assert TabState.read(said) == TabState()


def test_a_new_tab_leaves_the_box_alone() -> None:
    assert TabState().view() == View()


def test_an_unfinished_reply_stays() -> None:
    view = TabState(exchanges=(("hi", "hello"), ("more", "once up")), is_running=True).view()
    assert view == View((Exchange("hi", "hello"), Exchange("more", "once up")), notices=INTERRUPTED)


@pytest.mark.parametrize(("draft", "box"), [("", "more"), ("typed meanwhile", "more\ntyped meanwhile")])
def test_a_message_without_a_reply_returns_to_the_box(draft: str, box: str) -> None:
    view = TabState(exchanges=(("hi", "hello"), ("more", "")), is_running=True, draft=draft).view()
    assert view == View((Exchange("hi", "hello"),), notices=INTERRUPTED, draft=box)


def test_no_more_is_kept_than_a_page_keeps() -> None:
    many = tuple((str(number), "x") for number in range(MAX_EXCHANGES + 5))
    assert TabState(exchanges=many).view().exchanges[0] == Exchange("5", "x")
