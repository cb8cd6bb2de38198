"""The units of systemd: sound by its own word, and every word of a command arrives."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_aio.cluster.unit import COMMANDS, Program, ServiceUnit, check_reachable, quoted
from qwen_aio.errors import InvalidSettings

SHIPPED = Path("deploy/systemd/qwen-aio.service")
ESCAPED = {r"\\": "\\", r"\"": '"', r"\n": "\n", r"\t": "\t", r"\r": "\r"}
MOST_EXPOSED = "20"  # of 100, by systemd's own count


def analyze(*arguments: str | Path, folder: Path = Path("/nowhere")) -> subprocess.CompletedProcess[str]:
    """`folder` is what --user needs."""
    environment = os.environ | {"XDG_RUNTIME_DIR": str(folder)}
    return subprocess.run(["systemd-analyze", *arguments], env=environment, capture_output=True, text=True)


def unit_of(program: Program, home: str | None) -> ServiceUnit:
    return ServiceUnit(
        program, ("--model", "/srv/a model/50%", "--id", "$1"), home=None if home is None else Path(home)
    )


@pytest.mark.parametrize("home", [None, "/home/a b/50%"], ids=["system", "own"])
@pytest.mark.parametrize("program", COMMANDS)
def test_systemd_finds_no_mistake(program: Program, home: str | None, tmp_path: Path) -> None:
    unit = unit_of(program, home)
    file = tmp_path / f"{unit.name}.service"
    file.write_text(str(unit), encoding="utf-8")
    found = analyze(*(["--user"] if home else []), "verify", file, folder=tmp_path)
    assert (found.returncode, found.stdout + found.stderr) == (0, "")


def test_systemd_would_find_one(tmp_path: Path) -> None:
    file = tmp_path / "qwen-aio.service"
    file.write_text(str(ServiceUnit("cluster")).replace("KillMode", "KillMood"), encoding="utf-8")
    assert "Unknown key" in analyze("verify", file).stderr


def test_a_service_of_the_system_is_hardened() -> None:
    found = analyze("security", "--offline=yes", f"--threshold={MOST_EXPOSED}", SHIPPED)
    assert found.returncode == 0, found.stdout + found.stderr


def test_the_shipped_unit_is_the_one_that_is_written() -> None:
    assert SHIPPED.read_text(encoding="utf-8") == str(ServiceUnit("cluster", python="/opt/qwen-aio/bin/python"))


def unquoted(text: str) -> list[str]:
    """The words of a line, as systemd.syntax(7) and systemd.unit(5) say."""
    words = re.findall(r'"((?:\\.|[^"\\])*)"|(\S+)', text)
    plain = (re.sub(r"\\.", lambda escape: ESCAPED[escape[0]], inner) or bare for inner, bare in words)
    return [word.replace("%%", "%") for word in plain]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n\t\r"), min_size=1)))
def test_every_word_arrives_as_it_was(words: list[str]) -> None:
    line = " ".join(map(quoted, words))
    assert unquoted(line) == words
    assert "\n" not in line


def test_a_command_has_no_variables() -> None:
    assert '--id "$$1"' in str(unit_of("worker", None))


@pytest.mark.parametrize("place", ["/home/me/venv", "/root/venv", "/tmp/x"])
def test_an_installation_that_the_service_would_not_see_is_refused(place: str) -> None:
    with pytest.raises(InvalidSettings, match=r"does not see .*--user"):
        check_reachable([Path("/usr"), Path(place)])
    check_reachable([Path("/usr"), Path("/opt/qwen-aio"), Path("/homes")])
