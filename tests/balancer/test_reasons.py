"""The balancer's reasons: sentences and values, in English and in Chinese."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from pathlib import Path
from string import Formatter

import pytest

from qwen_aio import balancer
from qwen_aio.balancer import reasons
from qwen_aio.balancer.cost import policies
from qwen_aio.balancer.dashboard.strings import CHINESE, ENGLISH
from qwen_aio.balancer.params import PARAMS
from qwen_aio.balancer.reasons import NOT_DEMOTED, REPORTS, SILENT, SLOW, TAKES_NO_WORK, Reason
from qwen_aio.language import Both
from tests.balancer.world import World

ROOM = Path(balancer.__file__).parent
WORDS = [value for module in (reasons, policies) for value in vars(module).values() if isinstance(value, Both)]


def blanks(sentence: str) -> set[tuple[str | None, str | None]]:
    return {(name, spec) for _, name, spec, _ in Formatter().parse(sentence) if name}


def test_both_languages_of_a_reason_have_the_same_blanks():
    assert len(WORDS) > 30
    for words in WORDS:
        assert blanks(words.chinese) == blanks(words.english), words


def test_every_reason_is_given():
    source = "\n".join(path.read_text(encoding="utf-8") for path in ROOM.rglob("*.py"))
    names = [name for module in (reasons, policies) for name, value in vars(module).items() if isinstance(value, Both)]
    assert [name for name in names if len(re.findall(rf"\b{name}\b", source)) < 2] == []


def test_every_state_of_health_is_given_as_a_reason():
    trees = [ast.parse((ROOM / "workers" / name).read_text(encoding="utf-8")) for name in ("health.py", "worker.py")]
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    whys = [call.args[1] for call in calls if isinstance(call.func, ast.Name) and call.func.id == "HealthStatus"]
    assert len(whys) >= 10
    assert not [ast.unparse(why) for why in whys if isinstance(why, ast.Constant | ast.JoinedStr)]


def test_what_an_operator_sets_is_shown_in_chinese():
    world = World()
    world.up("a", "b")
    for state in ("drain", "maint", "ready"):
        world.registry.set_admin("a", state, force=False)
    world.registry.restore_admin({"a": "maint"})
    whys = [why for _, actor, change, why in world.recorded if "maint" in change or actor == "person"]
    assert len(whys) == 4
    assert {CHINESE.reason_of(why)[1] for why in whys} == {"zh-CN"}


def test_the_cost_of_a_worker_is_shown_in_chinese_with_all_its_terms():
    world = World(params=replace(PARAMS, breaker_failures=9, breaker_samples=9))
    world.up("a", "b", cpu_jitter=50.0)
    for name in "ab":
        world.fail(name)
    why = world.bind(work_s=0.2).why
    assert re.fullmatch(r"cost [\d.]+: queue [\d.]+ s, jitter x1\.50, failures x[\d.]+", why)
    shown, language = CHINESE.reason_of(why)
    assert language == "zh-CN"
    assert re.findall(r"[\d.]+", shown) == re.findall(r"\d[\d.]*", why)
    assert "抖动 ×1.50，失败 ×" in shown


@pytest.mark.parametrize(
    ("why", "shown"),
    [
        (Reason(SILENT, seconds=18.2), ("已有 18 秒没有任何消息", "zh-CN")),
        (Reason(REPORTS), ("状态报告按时到达", "zh-CN")),
        (
            Reason(SLOW, Reason(NOT_DEMOTED), milliseconds=2000),
            ("响应变慢：平均 2000 毫秒，连续多次报告均如此；但最多降级一半实例，只降最慢的", "zh-CN"),
        ),
        ("no answer from 10.0.0.7:7861", ("no answer from 10.0.0.7:7861", "en")),
        ("{seconds}", ("{seconds}", "en")),
        ("", ("", "en")),
    ],
)
def test_reasons_are_translated_and_the_words_of_others_stay(why, shown):
    assert CHINESE.reason_of(why) == shown


def test_values_are_filled_in_as_text():
    why = Reason(TAKES_NO_WORK, failure="{seconds} %s {0}")
    assert why == "it takes no work: {seconds} %s {0}"
    assert CHINESE.reason_of(why) == ("不接收请求：{seconds} %s {0}", "zh-CN")


@pytest.mark.parametrize("words", WORDS, ids=str)
def test_in_english_every_reason_is_its_sentence(words):
    why = Reason(words, **{name: 1.25 for name, _ in blanks(words.english)})
    assert ENGLISH.reason_of(why) == (str(why), "en")
