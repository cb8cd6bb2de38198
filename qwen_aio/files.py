"""Files: text that people write, in UTF-8 with or without a byte-order mark; atomic replacement."""

from __future__ import annotations

import codecs
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_FOREIGN_MARKS = {  # the longer first: UTF-16's is the beginning of UTF-32's
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


def read_text(path: Path) -> str:
    r"""The text in `path` without its mark, lines ended by \n. Raises OSError, ValueError."""
    return decode_text(path.read_bytes()).replace("\r\n", "\n").replace("\r", "\n")


def decode_text(content: bytes) -> str:
    """UTF-8 as text, without its mark. Raises ValueError, which says how to save it."""
    for mark, encoding in _FOREIGN_MARKS.items():
        if content.startswith(mark):
            raise ValueError(f"it is saved as {encoding} (PowerShell's > does that); save it as UTF-8")
    if b"\0" in content[:2]:  # the first character, in UTF-16 without a mark
        raise ValueError("it holds NUL bytes, as UTF-16 without a mark does; save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = content.count(b"\n", 0, exc.start) + 1
        raise ValueError(f"line {line} is not UTF-8 (byte {content[exc.start]:#04x}); save it as UTF-8") from exc


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path to write to; renamed to `path` at the end, removed if anything is raised.

    `path` holds the old content or the new one at every instant. Makes the folder. Writers do not
    disturb each other, and the last one wins. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield partial
        partial.replace(path)
    finally:
        with suppress(OSError):
            partial.unlink()
