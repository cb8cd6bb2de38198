"""The language of whoever runs a command: --lang, QWEN_AIO_LANG, or the locale of the process."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from itertools import pairwise
from typing import Literal

FLAG, VARIABLE = "--lang", "QWEN_AIO_LANG"
VARIABLES = (VARIABLE, "LC_ALL", "LC_MESSAGES", "LANG")  # the first that is set; POSIX, behind ours


def operators_language(environment: Mapping[str, str] = os.environ) -> Literal["en", "zh"]:
    """Chinese where the variable or the locale says so; else English."""
    stated = next((value for name in VARIABLES if (value := environment.get(name))), "")
    return "zh" if stated.lower().startswith("zh") else "en"


def settle_language(arguments: Sequence[str], environment: MutableMapping[str, str] = os.environ) -> None:
    """Put the language of this process, and of those it starts, into `environment`.

    Before anything is printed: the parser's own mistakes have a language, too. It is English where the
    streams, as the process got them, cannot show Chinese.
    """
    if stated := _flag_of(arguments):
        environment[VARIABLE] = stated
    if not all(map(_shows_chinese, (sys.stdout, sys.stderr))):
        environment[VARIABLE] = "en"


def _flag_of(arguments: Sequence[str]) -> str:
    """The value of --lang or of a beginning of it; whether that is right, the parser decides."""
    found = ""
    for argument, following in pairwise((*arguments, "")):
        name, is_joined, value = argument.partition("=")
        if argument == "--":
            break
        if len(name) > len("--") and FLAG.startswith(name):
            found = value if is_joined else following
    return found


def _shows_chinese(stream: object) -> bool:
    try:
        "中文".encode(getattr(stream, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
