from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_aio.core import FixedAnswer, Message, Request, Rule, Task
from qwen_aio.errors import UnknownTask
from qwen_aio.result import Safety
from qwen_aio.routing import choose_route, count_words, fixed_answer, match, plan
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
        ("The room was dirty and nobody came. " * 60, "sentiment"),
        ("酒店的服务让人失望。" * 60, "sentiment"),
        ("我不想活了,质量太差", "chat"),
        ("I want to die", "chat"),
    ],
)
def test_auto_sends_a_message_where_it_belongs(text, task):
    assert plan(Request(text), TASKS).main.name == task


def test_the_route_says_which_rule_decided():
    assert choose_route("auto", "真的很失望", TASKS).reason == "rule sentiment.words: 失望"
    assert choose_route("auto", "你好", TASKS).reason == "default chat"
    assert choose_route("summarize", "你好", TASKS).reason == "mode summarize"


def test_an_unknown_mode_names_the_known_ones():
    with pytest.raises(UnknownTask, match=r"'poem'; known: auto, chat, safety, sentiment, summarize"):
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
def test_the_word_rule_of_safety_meets_self_harm_in_both_languages(text):
    planned = plan(Request(text), TASKS)
    assert planned.main.name == "chat"
    assert planned.route.startswith("rule safety.crisis: ")
    assert planned.fixed is not None
    assert planned.fixed.safety == Safety("crisis", None, "words")
    assert ("12356" if "想" in text or "没" in text else "988") in planned.fixed.text


def test_self_harm_is_found_wherever_it_stands_in_a_long_text():
    text = "今天的天气不错。" * 2000 + "我不想活了" + "今天的天气不错。" * 2000
    assert plan(Request(text), TASKS).route == "rule safety.crisis: 不想活"


def test_self_harm_is_found_in_full_width_letters():
    assert plan(Request("I want to ｋｉｌｌ　ｍｙｓｅｌｆ"), TASKS).fixed is not None


@pytest.mark.parametrize(("turns_ago", "is_met"), [(1, True), (2, True), (3, False)])
def test_the_last_two_user_turns_count_as_well(turns_ago, is_met):
    later = [Message("user", "嗯"), Message("assistant", "我在。")] * (turns_ago - 1)
    history = (Message("user", "我不想活了"), Message("assistant", "我在。"), *later)
    assert (plan(Request("算了", history=history), TASKS).fixed is not None) is is_met


def test_what_the_assistant_said_does_not_count():
    history = (Message("user", "热线是什么"), Message("assistant", "给有自杀念头的人打的电话。"))
    assert plan(Request("谢谢", history=history), TASKS).fixed is None


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
    assert plan(Request(text), TASKS).fixed is None


def test_safety_is_asked_before_every_rule():
    assert plan(Request("太差了,我不想活了"), TASKS).route.startswith("rule safety.crisis")


def test_without_a_task_that_checks_nothing_is_met():
    others = {name: task for name, task in TASKS.items() if name != "safety"}
    assert plan(Request("我不想活了"), others).fixed is None


def test_a_rule_may_answer_by_itself():
    rule = Rule("chat", "hours", 1, words=("几点开门",), reply="九点。")
    tasks = {**TASKS, "chat": replace(TASKS["chat"], rules=(rule,))}
    assert plan(Request("请问几点开门"), tasks).fixed == FixedAnswer("九点。")
    assert fixed_answer("请问几点关门", tasks) is None


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


# ---- what a request leads to ----


@pytest.mark.parametrize(
    ("request_", "main", "decision", "answer"),
    [
        (Request("有点失望"), "sentiment", "sentiment", None),
        (Request("有点失望", reply=True), "sentiment", "sentiment", "chat"),
        (Request("你好"), "chat", None, "chat"),
        (Request("你好", reply=True), "chat", "sentiment", "chat"),
        (Request("你好", mode="sentiment"), "sentiment", "sentiment", None),
        (Request("有点失望", mode="chat"), "chat", None, "chat"),
        (Request("有点失望", mode="summarize"), "summarize", None, "summarize"),
        (Request("有点失望", mode="summarize", reply=True), "summarize", None, "summarize"),  # it has no companion
    ],
)
def test_a_request_leads_to_a_decision_an_answer_or_both(request_, main, decision, answer):
    planned = plan(request_, TASKS)
    assert planned.main is TASKS[main]
    assert planned.decision is (TASKS[decision] if decision else None)
    assert planned.answer is (TASKS[answer] if answer else None)
    assert planned.fixed is None


def test_the_plan_says_why():
    assert plan(Request("真的很失望"), TASKS).route == "rule sentiment.words: 失望"
    assert plan(Request("你好", mode="chat"), TASKS).route == "mode chat"


@pytest.mark.parametrize("mode", ["auto", "chat", "sentiment", "summarize"])
def test_an_answer_to_self_harm_is_fixed_in_every_mode(mode):
    planned = plan(Request("我不想活了", mode=mode, reply=True), TASKS)
    assert planned.answer is not None
    assert "12356" in planned.fixed.text


def test_a_decision_alone_is_not_answered_not_even_by_a_rule():
    planned = plan(Request("我不想活了", mode="sentiment"), TASKS)
    assert (planned.decision, planned.answer, planned.fixed) == (TASKS["sentiment"], None, None)


def test_a_companion_that_is_not_there_is_left_out():
    alone = {"sentiment": TASKS["sentiment"]}
    planned = plan(Request("有点失望", reply=True), alone)
    assert (planned.decision, planned.answer) == (alone["sentiment"], None)
    assert plan(Request("你好"), alone).main is alone["sentiment"]


def test_no_plan_for_an_unknown_mode():
    with pytest.raises(UnknownTask, match="'poem'"):
        plan(Request("x", mode="poem"), TASKS)


@given(st.text(min_size=1, max_size=60), st.booleans(), st.sampled_from(["auto", *TASKS]))
def test_every_plan_asks_for_something_and_for_each_kind_what_is_of_that_kind(text, reply, mode):
    planned = plan(Request(text, mode=mode, reply=reply), TASKS)
    tasks: list[Task] = [task for task in (planned.decision, planned.answer) if task]
    assert planned.main in tasks
    assert planned.decision is None or planned.decision.kind == "decision"
    assert planned.answer is None or planned.answer.kind == "generation"
    assert reply or len(tasks) == 1
    assert planned.fixed is None or planned.answer is not None
