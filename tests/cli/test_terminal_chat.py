"""A conversation in the terminal, with a fake engine: what is shown, what is remembered, what a failure leaves."""

from __future__ import annotations

import asyncio
import io
from contextlib import nullcontext
from functools import partial
from typing import Literal

import pytest

from qwen_aio.cli.terminal_chat import DIM, NORMAL, Screen, TerminalChat
from qwen_aio.core import Text
from qwen_aio.errors import EngineStopped, NotReady
from tests.fakes import FakeEngine
from tests.served import HeldAnswer, Worker

UNCLEAR = {"正面": 0.33, "中性": 0.33, "负面": 0.34}


def chat_with(
    worker: Worker, out: io.StringIO, *, language: Literal["en", "zh"] = "en", can_dim: bool = False
) -> TerminalChat:
    connect = partial(nullcontext, worker.gate)
    return TerminalChat(connect, Screen(out, can_dim=can_dim), mode="auto", language=language)


def remembered(engine: FakeEngine) -> str:
    """The earlier turns that the last answer was given with."""
    turns = engine.prompts[-1].turns
    return "".join(segment.text for turn in turns for segment in turn if isinstance(segment, Text))


@pytest.mark.parametrize(
    ("language", "shown"),
    [("en", "😔 Negative · 91.8 %\n抱歉。\n"), ("zh", "😔 负面 · 91.8 %\n抱歉。\n")],
)
async def test_the_decision_stands_between_message_and_answer(language, shown):
    out = io.StringIO()
    await chat_with(Worker(FakeEngine(pieces=("抱", "歉。"))), out, language=language).say("太失望了")
    assert out.getvalue() == shown


async def test_a_terminal_shows_it_dim_and_an_unclear_one_without_a_number():
    out = io.StringIO()
    await chat_with(Worker(FakeEngine(probabilities=UNCLEAR)), out, can_dim=True).say("太失望了")
    assert out.getvalue() == f"{DIM}😐 Neutral · no label is certain enough{NORMAL}\n你好\n"


async def test_what_was_said_travels_with_the_next_message_until_one_begins_anew():
    engine, out = FakeEngine(pieces=("答一",)), io.StringIO()
    chat = chat_with(Worker(engine), out)
    await chat.say("问一")
    await chat.say("问二")
    assert "问一" in remembered(engine) and "答一" in remembered(engine)
    chat.forget()
    await chat.say("问三")
    assert remembered(engine) == ""
    assert "A new conversation.\n" in out.getvalue()


async def test_the_beginning_of_a_stopped_answer_stays():
    engine, out = HeldAnswer(pieces=("半", "句"), gate=asyncio.Event()), io.StringIO()
    chat = chat_with(Worker(engine), out)
    saying = asyncio.ensure_future(chat.say("问一"))
    await engine.begun.wait()
    saying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await saying
    assert engine.open_streams == 0
    assert out.getvalue().endswith("半\n")
    engine.gate.set()
    await chat.say("问二")
    assert "问一" in remembered(engine) and "半" in remembered(engine)


async def test_a_message_that_failed_is_not_remembered_and_the_next_one_is_answered():
    engine, out = FakeEngine(), io.StringIO()
    worker = Worker(engine, is_open=False)
    chat = chat_with(worker, out)
    with pytest.raises(NotReady):
        await chat.say("问一")
    worker.open()
    await chat.say("问二")
    assert remembered(engine) == ""
    engine.error, engine.error_after = EngineStopped("gone"), 1
    with pytest.raises(EngineStopped):
        await chat.say("问三")


async def test_an_answer_cannot_steer_the_terminal():
    out = io.StringIO()
    await chat_with(Worker(FakeEngine(pieces=("a\x1b[2Jb\x9b\r\x07c\td\n",))), out).say("太失望了")
    assert out.getvalue().split("\n", 1)[1] == "a\ufffd[2Jb\ufffd\ufffd\ufffdc\td\n"
