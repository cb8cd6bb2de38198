"""Edits qwen_aio.toml: everything that a person wrote stays, comments and order too.

Knows how TOML is written, not which settings there are.
"""

from __future__ import annotations

import codecs
import json
import shutil
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import StringIO
from itertools import takewhile
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from qwen_aio.errors import InvalidSettings
from qwen_aio.files import decode_text, replacing

Value = str | int
FILE_BYTES = 4096  # of a settings file on the disk


def read_settings_file(path: Path) -> dict[str, Any]:
    """The keys of the file; none without a file.

    Fractions stay text. Raises InvalidSettings if it is damaged.
    """
    return _parsed(path, _read(path)[1])


def write_settings_file(path: Path, values: Mapping[str, Value], *, heading: str) -> None:
    """Set `values`, new ones under the comment `heading`. The file is replaced as a whole.

    Raises InvalidSettings for a damaged file, or one that cannot be written.
    """
    mark, old = _read(path)
    expected = {**_parsed(path, old), **values}
    new = with_values(old, values, heading=heading)
    assert _parsed(path, new) == expected
    with _writing(path) as target, replacing(target) as partial:
        partial.write_bytes(mark + new.encode())
        if target.exists():
            shutil.copymode(target, partial)


def check_writable(path: Path) -> None:
    """Raises InvalidSettings if nothing could be written to `path` later. Its folder is made."""
    with _writing(path) as target:
        target.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=target.parent) as file:
            file.write(bytes(FILE_BYTES))


def with_values(text: str, values: Mapping[str, Value], *, heading: str) -> str:
    """`text`, which is TOML, with these keys at its top level.

    Everything else is as it was, byte for byte.
    """
    statements = list(_statements(text))
    before_tables = list(takewhile(lambda one: not one.lstrip().startswith("["), statements))
    tables = statements[len(before_tables) :]
    keys = [next(iter(tomllib.loads(statement)), "") for statement in before_tables]
    top = "".join(
        _assignment(key, values[key]) + _tail(statement) if key in values else statement
        for key, statement in zip(keys, before_tables, strict=True)
    )
    new = [_assignment(key, value) + "\n" for key, value in values.items() if key not in keys]
    if new:
        gap = "" if not top else "\n" if top.endswith("\n") else "\n\n"
        top += "".join([gap, *(f"# {line}\n" for line in heading.splitlines()), *new, "\n" if tables else ""])
    return "".join([top, *tables])


def _read(path: Path) -> tuple[bytes, str]:
    """The byte-order mark, if there is one, and the text after it. Raises InvalidSettings."""
    if path.exists() and not path.is_file():  # a folder; or a device, which would have no end
        raise InvalidSettings(f"{path} is not a plain file; choose another with --out")
    try:
        content = path.read_bytes() if path.exists() else b""
        return codecs.BOM_UTF8 if content.startswith(codecs.BOM_UTF8) else b"", decode_text(content)
    except (OSError, ValueError) as exc:
        raise InvalidSettings(f"{path} cannot be read: {exc}; mend it, or choose another file with --out") from exc


@contextmanager
def _writing(path: Path) -> Iterator[Path]:
    """The file to write to: a link stays one. Raises InvalidSettings for an OSError."""
    try:
        yield path.resolve()
    except OSError as exc:
        raise InvalidSettings(f"{path} cannot be written: {exc.strerror}; choose another file with --out") from exc


def _parsed(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text, parse_float=str)  # a float nan would not be equal to itself
    except ValueError as exc:
        raise InvalidSettings(f"{path} is not valid: {exc}; mend it, or choose another file with --out") from exc


def _statements(text: str) -> Iterator[str]:
    """Splits into the fewest lines that are TOML: a comment, an assignment, a table's head."""
    statement = ""
    for line in StringIO(text):  # unlike str.splitlines, at \n alone
        statement += line
        if _is_toml(statement):
            yield statement
            statement = ""
    assert not statement


def _is_toml(text: str) -> bool:
    try:
        tomllib.loads(text)
    except ValueError:
        return False
    return True


def _assignment(key: str, value: Value) -> str:
    return f"{key} = {json.dumps(value)}"


def _tail(statement: str) -> str:
    """Everything after the value: spaces, a comment, the end of the line."""
    marks = (at for at, letter in enumerate(statement) if letter == "#" and _is_toml(statement[:at]))
    assignment = statement[: next(marks, len(statement))].rstrip()
    return statement[len(assignment) :]
