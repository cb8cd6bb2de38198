"""docs/tried.md says for each fault that was found which test keeps it mended; each of those tests is there."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TABLE = Path("docs/tried.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| *(\d+) *\|.+\|.+\|(.+)\|$", TABLE, flags=re.MULTILINE)
TESTS = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TABLE)


@cache
def names_in(path: str) -> set[str]:
    nodes = ast.walk(ast.parse(Path(path).read_text(encoding="utf-8")))
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize(("path", "name"), TESTS, ids=lambda part: part)
def test_a_named_test_exists(path, name):
    assert name in names_in(path)


def test_each_fault_has_rows_and_each_row_a_test():
    assert {int(number) for number, _ in ROWS} >= set(range(1, 22))
    assert [cell for _, cell in ROWS if "`tests/" not in cell] == []
