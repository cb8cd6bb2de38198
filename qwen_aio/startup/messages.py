"""What operators read, in their language: every sentence is English in the code, and is looked up when it is printed.

messages.zh.toml is the table. A sentence with something in it, `no settings file at /etc/a.toml`, is found by
its shape, `no settings file at {file}`: errors and lines carry plain text, and the log stays English.
What is in a sentence may be one itself (`{why}`), and is looked up, too.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from string import Formatter
from typing import TextIO
from unicodedata import east_asian_width

from qwen_aio.startup.language import operators_language

WIDE = "WF"  # two columns of a terminal
MOST_LEVELS = 8  # of sentences in sentences; what a stranger sent may have any number
TABLE = Path(__file__).with_name("messages.zh.toml")


@dataclass(frozen=True)
class Shape:
    """A sentence with holes: the text before, between and after them, and their names."""

    texts: tuple[str, ...]
    names: tuple[str, ...]

    @classmethod
    def of(cls, template: str) -> Shape:
        """`no settings file at {file}`; braces that are meant are doubled. Raises ValueError."""
        texts, names = [""], []
        for text, name, _, _ in Formatter().parse(template):
            texts[-1] += text
            if name is not None:
                names.append(name)
                texts.append("")
        return cls(tuple(texts), tuple(names))

    def values_in(self, message: str) -> Mapping[str, str] | None:
        """What fills the holes in `message`, each as short as it can be; None if it has another shape."""
        if not self.names:
            return {} if message == self.texts[0] else None
        first, *between, last = self.texts
        at, end = len(first), len(message) - len(last)
        if at > end or not message.startswith(first) or not message.endswith(last):
            return None
        values = []
        for text in between:
            found = message.find(text, at, end)
            if found < 0:
                return None
            values.append(message[at:found])
            at = found + len(text)
        return dict(zip(self.names, (*values, message[at:end]), strict=True))


def say(*sentences: str, file: TextIO | None = None) -> None:
    """Print one line of sentences in the operator's language, at once; to standard output, if no `file` is named."""
    print(line_of(*sentences), file=file or sys.stdout, flush=True)


def line_of(*sentences: str) -> str:
    """A line of sentences in the operator's language."""
    return {"en": "; ", "zh": "；"}[operators_language()].join(map(translated, sentences))


def translated(message: str) -> str:
    """`message` in the operator's language; itself if the table has no sentence of its shape."""
    return in_chinese(message) if operators_language() == "zh" else message


def in_chinese(message: str, *, levels: int = MOST_LEVELS) -> str:
    """The first sentence of the same shape; what fills its holes is looked up as well, down to `levels` of them."""
    for shape, chinese in _sentences() if levels else ():
        values = shape.values_in(message)
        if values is not None:
            return chinese.format(**{name: in_chinese(value, levels=levels - 1) for name, value in values.items()})
    return message


@cache
def _sentences() -> list[tuple[Shape, str]]:
    """Those that begin with a word of their own come first, then those with more of them.

    Others may have the shape of a message by accident: because of what stands in it.
    """
    found = [(Shape.of(english), chinese) for english, chinese in read_table().items()]
    return sorted(found, key=lambda pair: (not pair[0].texts[0], -len("".join(pair[0].texts))))


def read_table() -> dict[str, str]:
    """English -> Chinese, of all tables in the file."""
    tables = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    texts = {text["en"]: text["zh"] for text in tables.pop("text")}
    return {english: chinese for table in tables.values() for english, chinese in table.items()} | texts


def columns(text: str) -> int:
    """How many columns of a terminal `text` takes."""
    return sum(2 if east_asian_width(letter) in WIDE else 1 for letter in text)
