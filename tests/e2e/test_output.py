"""Programs whose output cannot be written: no traceback, no end of a server, and an exit status that says so."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from qwen_aio.startup.streams import CLOSED_STATUS, FULL_STATUS
from tests.e2e.processes import ROOT, App, free_port

FULL = Path("/dev/full")
pytestmark = pytest.mark.skipif(not FULL.exists(), reason="no device here is always full")
PRINTING = [
    ("app.py", "--help"),
    ("balancer.py", "--version"),
    ("-m", "qwen_aio.cli.main", "tasks", "list"),
    ("-u", "-m", "qwen_aio.cli.main", "tasks", "list"),
]


def environment(home: Path, **variables: str) -> dict[str, str]:
    return os.environ | {"QWEN_AIO_HOME": str(home)} | variables


@pytest.mark.parametrize("command", PRINTING, ids=" ".join)
def test_a_full_disk_is_told_in_a_sentence_and_by_the_status(tmp_path: Path, command: tuple[str, ...]) -> None:
    with FULL.open("wb") as full:
        ended = subprocess.run(
            [sys.executable, *command],
            cwd=ROOT,
            env=environment(tmp_path),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert ended.returncode == FULL_STATUS
    assert ended.stderr.endswith(f": not everything could be printed: {os.strerror(errno.ENOSPC)}\n")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("command", PRINTING, ids=" ".join)
def test_a_reader_that_has_gone_is_told_by_the_status_alone(tmp_path: Path, command: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment(tmp_path), stdout=writing, stderr=subprocess.PIPE
    )
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (CLOSED_STATUS, b"")


@pytest.mark.parametrize("encoding", ["ascii", "cp936", "utf-8"])
def test_chinese_and_emoji_are_printed_whatever_the_console_is(tmp_path: Path, encoding: str) -> None:
    command = [sys.executable, "-m", "qwen_aio.cli.main", "tasks", "list"]
    variables = {"PYTHONIOENCODING": encoding, "LC_ALL": "C"}
    listed = subprocess.run(command, cwd=ROOT, env=environment(tmp_path, **variables), capture_output=True, check=True)
    assert "😔 negative = 负面" in listed.stdout.decode()


@pytest.mark.parametrize(
    "command", [("app.py", "--mode", "worker"), ("app.py", "--mode", "ui"), ("balancer.py",)], ids=" ".join
)
def test_a_server_that_can_say_nothing_serves_and_ends_as_asked(tmp_path: Path, command: tuple[str, ...]) -> None:
    port = free_port()
    with FULL.open("wb") as full:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / command[0]), *command[1:], "--port", str(port), "--log-level", "debug"],
            env=environment(tmp_path),
            stdout=full,
            stderr=full,
        )
    (tmp_path / "log").touch()
    server = App(process, f"http://127.0.0.1:{port}", tmp_path, tmp_path / "log")
    try:
        server.wait_until("serving", lambda: serves(server))
        assert server.stop(signal.SIGTERM) == FULL_STATUS
    finally:
        process.kill()
        process.wait()


def serves(server: App) -> bool:
    try:
        return server.get("/livez")[0] == 200
    except OSError:
        return False
