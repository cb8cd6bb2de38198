"""`make run` on a machine that lacks something: what is said before anything is loaded. Python and pip are stand-ins."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Makes an environment that consists of itself; whether pip reaches the index it is given is up to REACHED.
PYTHON = """\
#!/bin/sh
case "$1 $2" in
    "-c "*) [ "$AGE" = new ] ;;
    "--version "*) echo "Python 3.9.18" ;;
    "-m venv") mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
    "-m pip") echo "pip: $*" >&2; case "$*" in *--index-url*) [ "$REACHED" = yes ] ;; esac ;;
esac
"""


def script(path: Path, content: str) -> Path:
    path.write_text(content)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def install(folder: Path, *, age: str = "new", reached: bool = True, system: str = "Linux") -> list[str]:
    """The lines that `make` says, and the calls of pip among them."""
    script(folder / "uname", f"#!/bin/sh\necho {system}\n")
    python = script(folder / "python", PYTHON)
    environment = os.environ | {"AGE": age, "REACHED": "yes" if reached else "no"}
    environment |= {"PATH": f"{folder}:{os.environ['PATH']}"}
    venv = folder / "venv"
    command = [
        "make",
        "-C",
        str(ROOT),
        f"PYTHON={python}",
        f"VENV={venv}",
        "TORCH_INDEX=https://mirror",
        f"{venv}/.installed",
    ]
    made = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8")
    assert (made.returncode == 0) == (venv / ".installed").exists() == (age == "new")
    return made.stdout.splitlines()


def line_with(lines: list[str], *words: str) -> int:
    (number,) = (number for number, line in enumerate(lines) if all(word in line for word in words))
    return number


def test_an_old_python_is_reported_in_both_languages_before_pip_is_asked(tmp_path: Path) -> None:
    lines = install(tmp_path, age="old")
    assert line_with(lines, "is Python 3.9.18", "3.11 or newer is needed")
    assert line_with(lines, "是 Python 3.9.18", "3.11 或更新的版本")
    assert not any(line.startswith("pip: ") for line in lines)


def test_with_pytorchs_index_nothing_is_warned_of(tmp_path: Path) -> None:
    lines = install(tmp_path)
    assert line_with(lines, "pip: ", "--index-url https://mirror", "torch==")
    assert not any("GIGABYTES" in line for line in lines)


def test_on_linux_gigabytes_are_warned_of_before_they_come(tmp_path: Path) -> None:
    lines = install(tmp_path, reached=False)
    loading = max(number for number, line in enumerate(lines) if line.startswith("pip: ") and "torch==" in line)
    assert line_with(lines, "https://mirror cannot be reached") < loading
    assert line_with(lines, "GIGABYTES", "TORCH_INDEX=", "PIP_INDEX_URL=") < loading
    assert line_with(lines, "几个 GB", "TORCH_INDEX=", "PIP_INDEX_URL=") < loading


def test_elsewhere_pips_own_torch_is_no_larger(tmp_path: Path) -> None:
    lines = install(tmp_path, reached=False, system="Darwin")
    assert line_with(lines, "https://mirror cannot be reached")
    assert not any("GIGABYTES" in line for line in lines)
