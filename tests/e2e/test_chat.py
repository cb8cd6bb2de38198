"""`qwen-aio chat` as a person uses it, in a terminal, and as a program does, through a pipe."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from qwen_aio.serving.access.key_ring import KeyRing
from tests.e2e.processes import free_port
from tests.fakes import FakeEngine
from tests.keys import SECRETS, file_of_keys
from tests.served import HeldAnswer, Worker, served
from tests.terminal import terminal

COMMAND = [sys.executable, "-m", "qwen_aio.cli.main", "chat"]
PROMPT = "> "
STOP, END, UP = "\x03", "\x04", "\x1b[A"  # Ctrl-C, Ctrl-D, the arrow


def pasted(text: str) -> str:
    """What a terminal sends for a paste."""
    return f"\x1b[200~{text}\x1b[201~"


def piped(text: str, url: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"LC_ALL": "C"} | variables
    return subprocess.run(
        [*COMMAND, "--url", url], input=text, env=environment, capture_output=True, encoding="utf-8", timeout=60
    )


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals there")
def test_a_conversation_with_the_bundled_model(tmp_path):
    with terminal(
        [*COMMAND, "--model", "bundled", "--precision", "fp32"],
        cwd=Path.cwd(),
        QWEN_AIO_HOME=str(tmp_path),
        LC_ALL="zh_CN.UTF-8",
    ) as there:
        for phase in ("正在读取模型文件", "正在加载权重", "正在检查黄金用例", "秒后就绪", "/quit"):
            there.wait_for(phase)
        there.wait_for(PROMPT)
        there.type("快递太慢了，差评\r")
        decided = there.wait_for(" %")
        assert "\x1b[2m😔 负面 · " in decided
        there.wait_for(PROMPT)
        there.type(pasted("第一行\n第二行") + "\r")
        assert there.wait_for(PROMPT).count("·") == 1  # one message
        there.type("/new\r")
        there.wait_for("新对话。")
        there.wait_for(PROMPT)
        there.type(UP + UP)
        there.wait_for("第二行")
        there.type("\x15\x15" + END)
        there.rest()
        assert there.process.wait() == 0


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals there")
async def test_a_stopped_answer_and_a_server_that_comes_and_goes(tmp_path):
    engine = HeldAnswer(pieces=("抱", "歉。"), gate=asyncio.Event())
    worker = Worker(engine, is_open=False)
    run = asyncio.to_thread
    async with served(worker) as server:
        with terminal(
            [*COMMAND, "--url", server.url], cwd=Path.cwd(), QWEN_AIO_HOME=str(tmp_path), LC_ALL="C"
        ) as there:
            await run(there.wait_for, PROMPT)
            there.type("太失望了\r")
            assert "still loading" in await run(there.wait_for, PROMPT)
            worker.open()
            there.type("太失望了\r")
            assert "Negative" in await run(there.wait_for, "抱")
            there.type(STOP)
            assert "Stopped" in await run(there.wait_for, PROMPT)
            await engine.freed.wait()
            engine.gate.set()
            there.type(f"half a line{STOP}")
            await run(there.wait_for, PROMPT)
            there.type("再来\r")
            assert "抱歉。" in await run(there.wait_for, PROMPT)
            server.serving.cancel()
            await asyncio.wait({server.serving})
            there.type("还在吗\r")
            assert "no answer from" in await run(there.wait_for, PROMPT)
            there.type("/quit\r")
            assert "Traceback" not in await run(there.rest)
            assert there.process.wait() == 1


async def test_a_pipe_gets_plain_text_and_a_message_a_line(tmp_path):
    worker = Worker(FakeEngine(), keys=KeyRing(file_of_keys(tmp_path).path))
    async with served(worker) as server:
        ended = await asyncio.to_thread(piped, "太失望了\n\n/new\n失望", server.url, QWEN_AIO_KEY=SECRETS["user"])
    message = "😔 Negative · 91.8 %\n你好\n"
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == f"{message}A new conversation.\n{message}"


def test_a_pipe_without_a_server_is_a_sentence_and_status_1():
    ended = piped("a\nb\n", f"http://127.0.0.1:{free_port()}")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.count("no answer from") == 2 == ended.stderr.count("\n")
