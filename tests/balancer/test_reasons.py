"""The sentences in which the balancer says why, and their Chinese."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from pathlib import Path

import pytest

from qwen_aio.balancer import dashboard
from qwen_aio.balancer.dashboard.reasons import IN_CHINESE
from qwen_aio.balancer.dashboard.strings import CHINESE, ENGLISH
from qwen_aio.balancer.params import PARAMS
from tests.balancer.world import World

ROOM = Path(dashboard.__file__).parent.parent


def text_of(node: ast.AST) -> str:
    """The text that stands in the code, # where something is filled in; empty if it is none."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    parts = node.values if isinstance(node, ast.JoinedStr) else []
    return "".join(text_of(part) or "#" for part in parts)


def nodes(*names: str) -> list[ast.AST]:
    return [node for name in names for node in ast.walk(ast.parse((ROOM / name).read_text(encoding="utf-8")))]


def findings() -> set[str]:
    """The reasons that stand in the code beside a state of health."""
    calls = [node for node in nodes("workers/health.py", "workers/worker.py") if isinstance(node, ast.Call)]
    found = [
        text_of(call.args[1]) for call in calls if isinstance(call.func, ast.Name) and call.func.id == "HealthStatus"
    ]
    return {text for text in found if text}


def test_every_state_of_health_has_its_reason_in_chinese():
    assert len(findings()) >= 10
    for reason in findings():
        pattern = re.escape(reason).replace(r"\#", ".+")
        assert any(re.fullmatch(pattern, known) for known in IN_CHINESE), reason


def test_nothing_is_translated_that_nobody_says():
    said = "\n".join(map(text_of, nodes(*(str(path) for path in ROOM.rglob("*.py")))))
    for reason in IN_CHINESE:
        for part in re.split(r"#|(?=; )|, \w+ x", reason):
            assert part in said, reason


def test_what_people_want_is_told_in_chinese():
    world = World()
    world.up("a", "b")
    for state in ("drain", "maint", "ready"):
        world.registry.set_admin("a", state, force=False)
    world.registry.restore_admin({"a": "maint"})
    reasons = [why for _, actor, change, why in world.recorded if "maint" in change or actor == "person"]
    assert len(reasons) == 4
    assert {CHINESE.reason_of(why)[1] for why in reasons} == {"zh-CN"}


def test_the_cost_of_a_worker_is_told_in_chinese_with_all_its_terms():
    world = World(params=replace(PARAMS, breaker_failures=9, breaker_samples=9))
    world.up("a", "b", cpu_jitter=50.0)
    for name in "ab":
        world.fail(name)
    why = world.bind(work_s=0.2).why
    assert re.fullmatch(r"cost [\d.]+: queue [\d.]+ s, jitter x1\.50, failures x[\d.]+", why)
    told, language = CHINESE.reason_of(why)
    assert language == "zh-CN"
    assert re.findall(r"[\d.]+", told) == re.findall(r"\d[\d.]*", why)
    assert "抖动 ×1.50，失败 ×" in told


@pytest.mark.parametrize(
    ("sentence", "told"),
    [
        ("nothing was heard of it for 18 s", ("已有 18 秒没有任何消息", "zh-CN")),
        ("its status reports arrive on time", ("状态报告按时到达", "zh-CN")),
        ("no answer from 10.0.0.7:7861", ("no answer from 10.0.0.7:7861", "en")),
        ("#", ("#", "en")),
        ("", ("", "en")),
    ],
)
def test_numbers_stay_and_what_is_not_known_stays_english(sentence, told):
    assert CHINESE.reason_of(sentence) == told


@pytest.mark.parametrize("sentence", sorted(IN_CHINESE))
def test_in_english_every_sentence_is_itself(sentence):
    filled = sentence.replace("#", "1.25")
    assert ENGLISH.reason_of(filled) == (filled, "en")
    assert IN_CHINESE[sentence].count("#") == sentence.count("#")
