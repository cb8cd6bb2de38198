"""qwen_aio.toml, changed by a program: whatever a person wrote there stays, comments and order too.

Knows how TOML is written, not which settings there are.
"""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from qwen_aio.errors import InvalidSettings
from qwen_aio.replacing import replacing

_LINE = re.compile(r"[^\n]*\n|[^\n]+")
Value = str | int


def read_settings_file(path: Path) -> dict[str, Any]:
    """What the file holds; nothing if there is none. Fractions are left as text. Raises InvalidSettings if damaged."""
    return _parsed(path, _text(path))


def write_settings_file(path: Path, values: Mapping[str, Value], *, heading: str) -> None:
    """Set `values`; those that are new stand under the comment `heading`. The file is the old one or the new one.

    Raises InvalidSettings for a damaged file, or one that cannot be written.
    """
    target = path.resolve()  # a link stays one
    old = _text(path)
    expected = {**_parsed(path, old), **values}
    new = with_values(old, values, heading=heading)
    assert _parsed(path, new) == expected
    try:
        with replacing(target) as partial:
            partial.write_bytes(new.encode())
            if target.exists():
                shutil.copymode(target, partial)
    except OSError as exc:
        raise InvalidSettings(f"{path} cannot be written: {exc.strerror}; choose another file with --out") from exc


def with_values(text: str, values: Mapping[str, Value], *, heading: str) -> str:
    """`text`, which is TOML, with these keys at its top level. Everything else is as it was, byte for byte."""
    statements = list(_statements(text))
    num_top = next((at for at, one in enumerate(statements) if one.lstrip().startswith("[")), len(statements))
    keys = [next(iter(tomllib.loads(statement)), "") for statement in statements[:num_top]]
    top = [
        _assignment(key, values[key]) + _tail(statement) if key in values else statement
        for key, statement in zip(keys, statements[:num_top], strict=True)
    ]
    new = [_assignment(key, value) + "\n" for key, value in values.items() if key not in keys]
    if new:
        before = "".join(top)
        gap = "" if not before else "\n" if before.endswith("\n") else "\n\n"
        top += [gap, *(f"# {line}\n" for line in heading.splitlines()), *new]
    return "".join([*top, *(["\n"] if new and statements[num_top:] else []), *statements[num_top:]])


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode() if path.exists() else ""
    except (OSError, ValueError) as exc:
        raise InvalidSettings(f"{path} cannot be read: {exc}; mend it, or choose another file with --out") from exc


def _parsed(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text, parse_float=str)  # what is not a number would not be equal to itself
    except ValueError as exc:
        raise InvalidSettings(f"{path} is not valid: {exc}; mend it, or choose another file with --out") from exc


def _statements(text: str) -> Iterator[str]:
    """The fewest lines that are TOML by themselves, one after another: a comment, an assignment, a table's head."""
    statement = ""
    for line in _LINE.findall(text):
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
    """What stands behind the value: spaces, a comment, the end of the line."""
    marks = (at for at, letter in enumerate(statement) if letter == "#" and _is_toml(statement[:at]))
    assignment = statement[: next(marks, len(statement))].rstrip()
    return statement[len(assignment) :]
