from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_aio.core import Rule
from qwen_aio.errors import UnknownTask
from qwen_aio.routing import choose_route, count_words, fixed_reply, match
from qwen_aio.tasks.loader import load_tasks

TASKS = load_tasks(Path("prompts"))


@pytest.mark.parametrize(
    ("text", "task"),
    [
        ("刚收到货,包装完好,但颜色和图片不太一样,有点小失望", "sentiment"),
        ("快递太慢了,差评!", "sentiment"),
        ("客服态度超好,必须点赞!", "sentiment"),
        ("这破手机,充一次电只能用3小时,气死我了!", "sentiment"),
        ("I love this dress, but it arrived late.", "sentiment"),
        ("你好", "chat"),
        ("What can you do?", "chat"),
        ("请帮我总结下面这段话:" + "今天我们开会讨论了下个季度的计划。" * 3, "summarize"),
        ("The committee met on Monday. " * 60, "summarize"),
        ("我不想活了,质量太差", "chat"),
        ("I want to die", "chat"),
    ],
)
def test_auto_sends_a_message_where_it_belongs(text, task):
    assert choose_route("auto", text, TASKS).task == task


def test_the_route_says_which_rule_decided():
    assert choose_route("auto", "真的很失望", TASKS).reason == "rule sentiment.words: 失望"
    assert choose_route("auto", "你好", TASKS).reason == "default chat"
    assert choose_route("summarize", "你好", TASKS).reason == "mode summarize"


def test_an_unknown_mode_names_the_known_ones():
    with pytest.raises(UnknownTask, match=r"'poem'; known: auto, chat, sentiment, summarize"):
        choose_route("poem", "x", TASKS)


@pytest.mark.parametrize(
    "text",
    [
        "我不想活了",
        "活着没意思",
        "我想自杀",
        "有时候想死",
        "我想去死",
        "想结束一切",
        "我想自殺",
        "i want to kill  myself",
        "thinking about suicide",
        "I'd be better off dead",
        "I wish I was dead",
    ],
)
def test_self_harm_is_met_by_a_rule_in_both_languages(text):
    reply = fixed_reply(text, TASKS)
    assert reply is not None
    assert "12356" in reply
    assert "988" in reply


def test_self_harm_is_found_wherever_it_stands_in_a_long_text():
    text = "今天的天气不错。" * 2000 + "我不想活了" + "今天的天气不错。" * 2000
    assert choose_route("auto", text, TASKS).reason == "rule chat.self_harm: 不想活"
    assert fixed_reply(text, TASKS) is not None


@pytest.mark.parametrize(
    "text",
    [
        "想死你了",
        "我想死我了这味道",
        "这手机卡死了",
        "dying to try it",
        "killing time",
        "笑死我了",
    ],
)
def test_figures_of_speech_are_not_taken_for_self_harm(text):
    assert fixed_reply(text, TASKS) is None


def test_lower_priority_numbers_are_asked_first():
    assert choose_route("auto", "太差了,我不想活了", TASKS).reason.startswith("rule chat.self_harm")


@pytest.mark.parametrize(
    ("text", "words"), [("你好", 2), ("hello world", 2), ("iPhone很好 ok", 4), ("", 0), ("!!!", 0)]
)
def test_a_cjk_character_counts_as_a_word(text, words):
    assert count_words(text, at_most=100) == words
    assert count_words(text, at_most=1) == min(words, 1)


def test_limits_and_words_must_hold_together():
    rule = Rule("t", "r", 1, words=("Bad",), max_chars=10, min_words=2)
    assert match(rule, "so BAD") == "Bad"
    assert match(rule, "bad") is None
    assert match(rule, "so bad, so very bad") is None
    assert match(Rule("t", "r", 1, min_chars=3), "abcd") == "4 characters"


@given(st.text(max_size=200))
def test_any_text_has_exactly_one_route(text):
    route = choose_route("auto", text, TASKS)
    assert route.task in TASKS
    assert route.reason.startswith((f"rule {route.task}.", f"default {route.task}"))
