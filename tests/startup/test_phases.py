"""What a start shows of what it is doing: on a terminal a line that goes away, elsewhere nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from qwen_aio.startup.phases import phase
from tests.terminal import terminal

CODE = "import sys; from qwen_aio.startup.phases import phase\nwith phase('thinking'): print('a line of the log', file=sys.stderr)"


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals there")
def test_a_terminal_shows_the_phase_while_it_lasts_and_a_longer_line_covers_it() -> None:
    with terminal([sys.executable, "-c", CODE], cwd=Path.cwd()) as there:
        assert there.rest() == "thinking\ra line of the log\r\n        \r"


def test_elsewhere_nothing_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with phase("thinking"):
        pass
    assert capsys.readouterr().err == ""


def test_a_process_without_streams_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    with phase("thinking"):
        pass


def test_the_phase_goes_away_with_a_failure() -> None:
    failing = CODE.replace("print('a line of the log', file=sys.stderr)", "exit(3)")
    with terminal([sys.executable, "-c", failing], cwd=Path.cwd()) as there:
        assert there.rest() == "thinking\r        \r"
        assert there.process.wait() == 3
