"""A model of another family behind the real commands: it decides, chats, streams, and the log says that it is slow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.processes import running
from tests.engine.foreign.families import FAMILIES, make_checkpoint_of

LINE = "the slow road"
COMMAND = (sys.executable, "-m", "qwen_aio.cli.main")


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a sliding window, and a template that refuses system messages."""
    folder = tmp_path_factory.mktemp("model") / "tiny-gemma"
    return make_checkpoint_of(FAMILIES["gemma"], folder, max_position_embeddings=8192)


def command(home: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"QWEN_AIO_HOME": str(home)}
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=110, check=False
    )


def test_a_server_decides_and_chats(gemma: Path, tmp_path: Path) -> None:
    flags = ("--mode", "worker", "--id", "qwen-1", "--model", str(gemma), "--threads", "1")
    with running(tmp_path, *flags) as app:
        log = app.log.read_text()
        assert log.count(LINE) == 1
        assert "Gemma2ForCausalLM" in log
        status, health = app.get("/health")
        assert (status, health["precision"], health["model"]) == (200, "fp32", "tiny-gemma")
        status, decided = app.post("/v1/run", {"text": "<end_of_turn>很好<bos>", "mode": "sentiment", "explain": True})
        assert status == 200, decided
        assert sum(decided["scores"].values()) == pytest.approx(1, abs=0.01)
        assert decided["usage"]["cached_tokens"] > 0  # the pinned prefix, although this family's cache has a window
        chat = {"text": "你好", "mode": "chat", "max_tokens": 8}
        status, answered = app.post("/v1/run", chat)
        assert status == 200, answered
        assert answered["reply"]["usage"]["completion_tokens"] > 0
        status, streamed = app.post("/v1/run", {**chat, "stream": True})
        assert status == 200
        assert "event: done" in streamed
        openai = {"model": "tiny-gemma", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4, "seed": 1}
        status, completion = app.post("/v1/chat/completions", openai)
        assert status == 200, completion
        assert completion["usage"]["completion_tokens"] > 0
        assert app.stop() == 0
    with running(tmp_path, *flags) as app:  # its own golden records hold
        golden = app.get("/health")[1]["golden"]
        assert all(message.startswith("ok ") for message in golden.values()), golden


def test_the_commands_take_it_too(gemma: Path, tmp_path: Path) -> None:
    done = command(tmp_path, "run", "--mode", "sentiment", "--model", gemma, "--golden", "off", "很好")
    assert done.returncode == 0, done.stderr
    assert LINE in done.stderr
    rows = tmp_path / "rows.csv"
    rows.write_text("text,label\n很好,positive\n太差了,negative\n收到了,neutral\n", encoding="utf-8")
    figures = tmp_path / "figures.json"
    flags = ("--model", gemma, "--precision", "bf16", "--golden", "off", "--no-flips", "--json", figures)
    done = command(tmp_path, "eval", rows, "--label-column", "label", *flags)
    assert done.returncode == 0, done.stderr
    assert json.loads(figures.read_text(encoding="utf-8"))["metrics"]["num_rows"] == 3


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--precision", "int8"), "transformers computes in fp32 or bf16"),
        (("--engine", "qwen"), "our engine computes only Qwen2ForCausalLM"),
    ],
)
def test_what_does_not_go_together_is_said(gemma: Path, tmp_path: Path, flags: tuple[str, ...], message: str) -> None:
    done = command(tmp_path, "run", "--mode", "sentiment", "--model", gemma, "--golden", "off", *flags, "很好")
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr
