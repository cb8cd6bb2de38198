"""A text without a visible character is refused wherever a text comes in; with one it is taken."""

import asyncio
import json
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_aio.cli.main import main
from qwen_aio.core import EngineRequest, Request
from qwen_aio.errors import InvalidRequest, InvalidTask
from qwen_aio.serving.pipeline import Pipeline
from qwen_aio.tasks.loader import load_task
from qwen_aio.ui.handlers import Ask
from qwen_aio.visible import INVISIBLE_CATEGORIES, has_visible
from qwen_aio.wire.engine import EngineRequestShape, engine_request_to_json
from qwen_aio.wire.request import RunRequest
from qwen_aio.worker.execution.executor import LocalExecutor
from tests.fakes import FAKE_MODEL, FakeEngine
from tests.served import TASKS
from tests.ui.test_handlers import keys, last, serving, visitor

BLANK = [
    *("\x00", "\u200b", "\ufeff", "\u00ad", "\u2060", "\u202e", "\u180e", "\u2028", "\u00a0", "\u3000", "\U000e0041"),
    *("\u3164", "\u115f\u1160", "\uffa0", "\u2800", "\ufe0f", "\u034f", "\u0301", "\u20e3", "\u17b4", "\U0001d159"),
    *("\u200d\ufe0f", "\ufffe", "\U000e0000", "\u2065", "", " \t\r\n"),
]
VISIBLE = [
    *(
        "。",
        "5",
        "差",
        "👨‍👩‍👧‍👦",
        "🇨🇳",
        "❤\ufe0f",
        "\u202eשלום",
        "e\u0301",
        "\x00a",
        "\u200b!",
        "\ue000",
        "\U0001face",
    ),
    *("\U0001fae9", "\ufffd", "1\ufe0f\u20e3", "ᄒ"),
]
shapeless = st.characters(codec="utf-8", categories=sorted(INVISIBLE_CATEGORIES - {"Cs"}))
nothing_visible = st.text(shapeless | st.sampled_from("\u3164\u2800\ufffe\u2065"), max_size=20)


async def run(text: str) -> None:
    pipeline = Pipeline(
        LocalExecutor(FakeEngine(), TASKS, model=FAKE_MODEL, worker="w", record=lambda *_: None, count=lambda _: None)
    )
    await anext(pipeline.stream(Request(text, mode="sentiment")))


def ways_in(text: str) -> list[str]:
    """The ways by which `text` is taken."""
    taken = []
    for name, read in (
        ("text", lambda: RunRequest.read(json.dumps({"text": text}).encode())),
        ("texts", lambda: RunRequest.read(json.dumps({"texts": ["a", text]}).encode())),
        ("client", lambda: RunRequest.from_core(Request(text), stream=False)),
        ("engine", lambda: EngineRequestShape.read(engine_request_to_json(EngineRequest("r", "sentiment", text)))),
        ("run", lambda: asyncio.run(run(text))),
    ):
        try:
            read()
            taken.append(name)
        except InvalidRequest as exc:
            assert "at least one visible character" in exc.message
            assert exc.param == ("texts.1" if name == "texts" else "text")
    return taken


@pytest.mark.parametrize("text", BLANK, ids=ascii)
def test_an_invisible_text_is_refused(text):
    assert not has_visible(text)
    assert ways_in(text) == []


@pytest.mark.parametrize("text", VISIBLE, ids=ascii)
def test_what_a_person_sees_is_text(text):
    assert has_visible(text)
    assert ways_in(text) == ["text", "texts", "client", "engine", "run"]


@settings(max_examples=50, deadline=None)
@given(nothing_visible, nothing_visible, st.characters(codec="utf-8", categories=("L", "N", "P")))
def test_one_visible_character_makes_a_text(before, behind, letter):
    assert ways_in(before + behind) == []
    if letter not in "\u115f\u1160\u3164\uffa0":
        assert ways_in(f"{before}{letter}{behind}") == ["text", "texts", "client", "engine", "run"]


def test_every_category_is_judged_and_hardly_any_letter_is_blank():
    seen = {unicodedata.category(chr(code)): 0 for code in range(0x110000)}
    for code in range(0x110000):
        seen[unicodedata.category(chr(code))] += has_visible(chr(code))
    assert {category for category, count in seen.items() if count == 0} == INVISIBLE_CATEGORIES
    letters = sum(unicodedata.category(chr(code))[0] in "LNPS" for code in range(0x110000))
    assert letters - sum(count for category, count in seen.items() if category[0] in "LNPS") == 6


async def test_the_page_says_what_is_missing_and_sends_nothing():
    handlers, service = serving()
    for text in ("\u200b", " \ufeff\n", "\u3164"):
        assert keys(await last(handlers, visitor(), Ask(text))) == ["nothing_visible"]
    assert service.requests == []


def test_the_command_line_refuses_it_before_a_model_is_loaded(capsys):
    assert main(["run", "\u200b", "--model", "/nowhere"]) == 1
    assert "at least one visible character" in capsys.readouterr().err


def test_a_golden_case_needs_a_visible_text(tmp_path):
    folder = tmp_path / "mood"
    folder.mkdir()
    task = 'kind = "decision"\ntitle = {}\nlabels = [{name="a", text="a", emoji=""}, {name="b", text="b", emoji=""}]\n'
    (folder / "task.toml").write_text(task, encoding="utf-8")
    blocks = "{% block system %}{% endblock %}{% block user %}{{ text }}{% endblock %}{% block answer %}{% endblock %}"
    (folder / "prompt.j2").write_text(blocks, encoding="utf-8")
    (folder / "golden.jsonl").write_text('{"text": "x"}\n{"text": "\u200b"}\n', encoding="utf-8")
    with pytest.raises(InvalidTask, match=r"golden\.jsonl:2.*visible"):
        load_task(folder)
