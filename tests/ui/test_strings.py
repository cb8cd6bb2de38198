"""Both languages say everything, with the same blanks."""

from __future__ import annotations

import re
from inspect import getmembers_static
from pathlib import Path
from string import Formatter
from typing import get_args

import pytest

from qwen_aio.core import Label, Task
from qwen_aio.language import Both, language_for
from qwen_aio.tasks.loader import load_tasks
from qwen_aio.ui.layout import modes
from qwen_aio.ui.strings import CHINESE, ENGLISH, PageStrings
from qwen_aio.ui.view import Notice, NoticeKey

CJK = re.compile(r"[\u4e00-\u9fff]")


def flat(strings: PageStrings) -> dict[str, str]:
    """Every sentence by a name, also those inside tables."""
    sentences: dict[str, str] = {}
    for name in (name for name, value in getmembers_static(strings) if isinstance(value, Both)):
        value = getattr(strings, name)
        table = {name: value} if isinstance(value, str) else {f"{name}.{key}": value[key] for key in value}
        sentences |= table
    return sentences


def blanks(sentence: str) -> set[str | None]:
    return {name for _, name, _, _ in Formatter().parse(sentence) if name is not None}


def test_both_languages_have_the_same_sentences_with_the_same_blanks() -> None:
    english, chinese = flat(ENGLISH), flat(CHINESE)
    assert english.keys() == chinese.keys()
    for name in english:
        assert english[name].strip() and chinese[name].strip(), name
        assert blanks(english[name]) == blanks(chinese[name]), name


def test_chinese_is_chinese_and_english_is_not() -> None:
    assert [name for name, text in flat(CHINESE).items() if not CJK.search(text)] == ["cached", "code"]
    assert [name for name, text in flat(ENGLISH).items() if CJK.search(text)] == []


@pytest.mark.parametrize("strings", [ENGLISH, CHINESE], ids=["en", "zh"])
def test_every_notice_has_a_sentence(strings: PageStrings) -> None:
    values: dict[str, str | int] = {
        "message": "the text {is} odd",
        "count": 3,
        "length": 9000,
        "limit": 8000,
        "url": "http://x",
    }
    for key in get_args(NoticeKey):
        sentence = strings.notice(Notice(key, values))
        assert sentence[-1] in ".?。？"


def test_labels_and_titles_follow_the_language() -> None:
    label = Label("very_good", "很好", "😊")
    assert (ENGLISH.label(label), CHINESE.label(label)) == ("Very good", "很好")
    task = Task("mood", "decision", {"en": "Mood"}, "", "h")
    assert (ENGLISH.title(task), CHINESE.title(task)) == ("Mood", "mood")


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "en"),
        ("zh-CN,zh;q=0.9", "zh"),
        ("en-US,en;q=0.9,zh;q=0.8", "en"),
        ("fr-FR, zh-TW;q=0.5, en;q=0.3", "zh"),
        ("de", "en"),
        (";;,,zh", "zh"),
    ],
)
def test_the_first_language_we_speak_is_taken(header: str, language: str) -> None:
    assert language_for(header) == language


def test_a_task_without_a_title_is_not_offered_on_the_page() -> None:
    tasks = load_tasks(Path("prompts"))
    assert tasks["safety"].title == {}
    assert [name for _, name in modes(tasks, ENGLISH)] == ["auto", "sentiment", "chat", "summarize"]
