"""Print a script that completes `qwen-aio` in a shell, made of the parser; make it again after an update.

qwen-aio completion bash > ~/.local/share/bash-completion/completions/qwen-aio
qwen-aio completion zsh > ~/.zfunc/_qwen-aio        and in ~/.zshrc, before compinit: fpath+=~/.zfunc
qwen-aio completion fish > ~/.config/fish/completions/qwen-aio.fish
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from qwen_aio.cli.parser import COMMANDS, parser_with

BASH = """\
_qwen_aio() {
    local at= flags= choices= word cur=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}
    [[ $before == "=" ]] && before=${COMP_WORDS[COMP_CWORD-2]}
    [[ $cur == "=" ]] && cur=
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        %(way)s
    done
    %(table)s
    COMPREPLY=($(compgen -W "$choices" -- "$cur"))
}
complete -o default -F _qwen_aio qwen-aio
"""
ZSH = """\
#compdef qwen-aio
local at= flags= choices= word cur=$PREFIX before=$words[CURRENT-1]
compset -P '--*=' && cur=$PREFIX before=${words[CURRENT]%%%%=*}
for word in "${(@)words[2,CURRENT-1]}"; do
    %(way)s
done
%(table)s
compadd -- ${=choices} || _files
"""
FISH = """\
function __qwen_aio_at
    set -l at
    for word in (commandline -opc)[2..]
        contains -- (string trim "$at $word") %(ways)s; and set at (string trim "$at $word")
    end
    test "$at" = "$argv"
end
%(lines)s
"""


@dataclass(frozen=True)
class ParserLevel:
    """What may follow the words `at`: none, a command, or a command and its action."""

    at: str
    words: Mapping[str, str]  # commands, actions or choices -> what they do
    flags: Sequence[argparse.Action]
    takes_files: bool  # or a text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="which shell the script is for")


def main(arguments: argparse.Namespace) -> int:
    """Print the script; the exit status."""
    print(script_for(arguments.shell, parser_with(COMMANDS, program="qwen-aio")), end="")
    return 0


def script_for(shell: str, parser: argparse.ArgumentParser) -> str:
    """The script that completes what `parser` reads."""
    levels = list(_levels(parser))
    if shell == "fish":
        lines = "\n".join(line for level in levels for line in _in_fish(level))
        return FISH % {"ways": " ".join(_quoted(level.at) for level in levels if level.at), "lines": lines}
    return {"bash": BASH, "zsh": ZSH}[shell] % {"way": _way(levels), "table": _table(levels)}


def _levels(parser: argparse.ArgumentParser, at: str = "") -> Iterator[ParserLevel]:
    """That of `parser`, and those below it."""
    words: dict[str, str] = {}
    takes_files = False
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            words = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, inner in action.choices.items():
                yield from _levels(inner, f"{at} {name}".strip())
        elif not action.option_strings:
            words |= dict.fromkeys(_choices(action), "")
            takes_files |= not _choices(action)
    yield ParserLevel(at, words, [action for action in parser._actions if action.option_strings], takes_files)


def _choices(action: argparse.Action) -> list[str]:
    """The words there are to choose from; those of a setting stand in its metavar."""
    if action.choices is not None:
        return [*action.choices]
    return action.metavar.split("|") if isinstance(action.metavar, str) and "|" in action.metavar else []


def _way(levels: Sequence[ParserLevel]) -> str:
    """A `case` that lengthens $at by $word, where that is a level."""
    known = "|".join(f'"{level.at}"' if " " in level.at else f'" {level.at}"' for level in levels if level.at)
    return f'case "$at $word" in {known}) at="$at${{at:+ }}$word" ;; esac'


def _table(levels: Sequence[ParserLevel]) -> str:
    """Sets $choices for $cur at $at, behind the word $before; to nothing where files or a text may follow."""
    rows = ['case "$at" in']
    values = ['case "$at $before" in']
    for level in levels:
        flags = " ".join(name for action in level.flags for name in action.option_strings)
        words = " ".join(level.words) or ("" if level.takes_files else flags)
        rows.append(f'    "{level.at}") flags="{flags}" choices="{words}" ;;')
        for action in level.flags:
            if action.nargs != 0:
                names = "|".join(f'"{level.at} {name}"' for name in action.option_strings)
                values.append(f'    {names}) choices="{" ".join(_choices(action))}" ;;')
    return "\n".join([*rows, "esac", '[[ $cur == -* ]] && choices="$flags"', *values, "esac"])


def _in_fish(level: ParserLevel) -> Iterator[str]:
    complete = f"complete -c qwen-aio -n {_quoted(f'__qwen_aio_at {level.at}'.strip())}"
    if not level.takes_files:
        yield f"{complete} -f"
    for word, meaning in level.words.items():
        yield f"{complete} -a {word} -d {_quoted(meaning)}"
    for action in level.flags:
        names = " ".join(
            f"-{'l' if name.startswith('--') else 's'} {name.lstrip('-')}" for name in action.option_strings
        )
        choices = " ".join(_choices(action))
        value = "" if action.nargs == 0 else f" -x -a {_quoted(choices)}" if choices else " -r -F"
        yield f"{complete} {names}{value} -d {_quoted((action.help or '').replace('%%', '%'))}"


def _quoted(text: str) -> str:
    """For fish."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
