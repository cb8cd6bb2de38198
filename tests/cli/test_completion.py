"""The scripts of `qwen-aio completion` in the shells they are for: what Tab makes of a line."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from qwen_aio.cli.completion import script_for
from qwen_aio.cli.parser import COMMANDS, parser_with
from tests.terminal import Terminal, terminal

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals there")
# What starts a shell, and what makes it read the script at {} and show its line between < and > for Ctrl-G.
SHELLS = {
    "bash": (
        ["bash", "--norc", "--noprofile", "-i"],
        """source {}; PS1='$ '; bind 'set enable-bracketed-paste off'; bind -x '"\\C-g": echo "<$READLINE_LINE>"'""",
    ),
    "zsh": (
        ["zsh", "-f", "-i"],
        "fpath+={0.parent}; autoload -U compinit; compinit -u -D; unsetopt zle_bracketed_paste; "
        """dump() {{ print -r -- "<$BUFFER>" }}; zle -N dump; bindkey '^G' dump""",
    ),
    "fish": (["fish", "--no-config", "-i"], """source {}; bind \\cg 'echo "<"(commandline)">"'"""),
}
LINES = [
    ("clas", "classify "),
    ("serve --mode wor", "serve --mode worker "),
    ("serve --mode=wor", "serve --mode=worker "),
    ("balance --policy roun", "balance --policy round_robin "),  # from the metavar of a setting
    ("tasks ren", "tasks render "),
    ("tasks render --prom", "tasks render --prompts-dir "),
    ("run --mode tasks --see", "run --mode tasks --seed "),  # a value is no command
    ("completion f", "completion fish "),
    ("classify revi", "classify reviews.csv "),
    ("classify reviews.csv --outp", "classify reviews.csv --output "),
    ("run --prompts-dir my_p", "run --prompts-dir my_prompts/"),
]


@pytest.fixture(scope="module", params=SHELLS)
def tab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """Completes a line in a real shell, in a folder with a file and a folder."""
    shell = request.param
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} on the path")
    home, place = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("place")
    script = home / "_qwen-aio"
    script.write_text(script_for(shell, parser_with(COMMANDS, program="qwen-aio")), encoding="utf-8")
    (place / "reviews.csv").touch()
    (place / "my_prompts").mkdir()
    command, setup = SHELLS[shell]
    with terminal(command, cwd=place, HOME=str(home), XDG_CONFIG_HOME=str(home), XDG_DATA_HOME=str(home)) as there:
        there.type(setup.format(script) + "; echo re''ady\n")
        there.wait_for("ready\r\n")
        yield lambda line: completed(there, line)


def completed(there: Terminal, line: str) -> str:
    there.type(f"qwen-aio {line}\t\x07")
    there.wait_for("<qwen-aio ")
    found = there.wait_for(">").removesuffix(">")
    there.type("\x15")  # Ctrl-U: an empty line
    return found


@pytest.mark.parametrize(("line", "wanted"), LINES)
def test_tab_completes(line: str, wanted: str, tab: Callable[[str], str]) -> None:
    assert tab(line) == wanted


def test_every_command_and_flag_is_in_every_script() -> None:
    parser = parser_with(COMMANDS, program="qwen-aio")
    for shell in SHELLS:
        script = script_for(shell, parser)
        assert all(command in script for command in COMMANDS)
        assert all(flag in script for flag in ("keys-file", "max-context", "fail-under", "accept"))


def test_the_command_prints_a_script_that_bash_reads(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "qwen_aio.cli.main", "completion", "bash"]
    printed = subprocess.run(command, capture_output=True, check=True).stdout
    subprocess.run(["bash", "-n"], input=printed, check=True)
    assert b"complete -o default -F _qwen_aio qwen-aio" in printed
