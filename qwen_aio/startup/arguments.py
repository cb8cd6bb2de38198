"""The parser of every program: argparse, whose help and refusals are in the operator's language."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable
from typing import Any, NoReturn

from qwen_aio.startup.language import FLAG
from qwen_aio.startup.messages import columns, translated

NOT_FIRST = "，。；：、）】？！"  # never at the beginning of a line
PIECE = re.compile(r"[!-~]+|\s+|.")  # words in Latin letters stay whole


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Looks every text up when it is shown, and knows that a Chinese letter takes two columns."""

    def add_usage(
        self,
        usage: str | None,
        actions: Iterable[argparse.Action],
        groups: Iterable[argparse._MutuallyExclusiveGroup],
        prefix: str | None = None,
    ) -> None:
        super().add_usage(usage, actions, groups, translated("usage: ") if prefix is None else prefix)

    def start_section(self, heading: str | None) -> None:
        super().start_section(heading and translated(heading))

    def add_text(self, text: str | None) -> None:
        super().add_text(text and translated(text))

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help and translated(action.help)

    def _split_lines(self, text: str, width: int) -> list[str]:
        return wrapped(text, width)


class ArgumentParser(argparse.ArgumentParser):
    """With the flag --lang, whose value settle_language has taken already."""

    def __init__(self, **more: Any) -> None:
        super().__init__(formatter_class=HelpFormatter, **more)
        self.add_argument(
            FLAG,
            choices=("zh", "en"),
            default=argparse.SUPPRESS,
            help="language of messages and of this help; logs are English (QWEN_AIO_LANG, else that of the locale)",
        )

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the arguments, and end with status 2."""
        self.print_usage(sys.stderr)
        self.exit(2, translated(f"{self.prog}: error: {message}") + "\n")


def wrapped(text: str, width: int) -> list[str]:
    """The lines of `text`, each of at most `width` columns, but for a word that is longer."""
    lines: list[str] = []
    line = ""
    for piece in PIECE.findall(" ".join(text.split())):
        may_begin = not piece.isspace() and piece not in NOT_FIRST
        if line and may_begin and columns(line + piece) > width:
            lines.append(line.rstrip())
            line = piece
        else:
            line += piece
    return [*lines, line]
