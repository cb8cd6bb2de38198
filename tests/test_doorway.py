"""The programs on a Python that cannot run them: one sentence in each language, no traceback."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from qwen_aio.doorway import OWN_LINE, TORCH_LINE
from tests.campaign import in_campaign
from tests.e2e.processes import free_port

DOORWAYS = ("app.py", "balancer.py")
BEFORE_THE_LOOK = (*DOORWAYS, "qwen_aio/__init__.py", "qwen_aio/doorway.py")


def started(*command: str, before: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """`python command`, after the statement `before`."""
    code = (
        f"import runpy, sys; sys.argv = {list(command)!r}; {before}; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    encoding = variables.get("PYTHONIOENCODING", "utf-8")
    return subprocess.run(
        [sys.executable, "-c", code], env=os.environ | variables, capture_output=True, encoding=encoding
    )


@pytest.mark.parametrize("path", BEFORE_THE_LOOK)
def test_what_runs_before_the_look_is_written_for_python_3_8(path: str) -> None:
    ast.parse(Path(path).read_text(encoding="utf-8"), feature_version=(3, 8))


@pytest.mark.parametrize("path", BEFORE_THE_LOOK)
def test_nothing_foreign_is_imported_before_the_look(path: str) -> None:
    for node in ast.parse(Path(path).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            assert {alias.name for alias in node.names} <= sys.stdlib_module_names
        elif isinstance(node, ast.ImportFrom):
            assert node.module == "qwen_aio.doorway" or node.module in sys.stdlib_module_names


@pytest.mark.parametrize("program", DOORWAYS)
@pytest.mark.parametrize("encoding", ["utf-8", "gbk", "ascii"])
def test_an_old_python_is_reported_in_both_languages(program: str, encoding: str) -> None:
    ended = started(program, before="sys.version_info = (3, 9, 18)", PYTHONIOENCODING=encoding)
    assert (ended.returncode, ended.stdout) == (1, "")
    english, chinese = ended.stderr.splitlines()
    assert english.startswith(f"{program}: this is Python 3.9.18, but 3.11 or newer is needed")
    assert "make run" in english
    assert "make run" in chinese


@pytest.mark.parametrize(
    ("program", "package"),
    [("app.py", "filelock"), ("app.py", "torch"), ("balancer.py", "pydantic"), *in_campaign(("app.py", "gradio"))],
)
def test_a_missing_package_is_reported_in_both_languages(tmp_path: Path, program: str, package: str) -> None:
    missing = f"sys.modules[{package!r}] = None"
    own = {"QWEN_AIO_HOME": str(tmp_path), "QWEN_AIO_KERNEL": "torch"}  # another kernel may do without torch
    ended = started(program, "--port", str(free_port()), before=missing, **own)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    english, chinese = ended.stderr.splitlines()[-2:]
    assert f"lacks the package {package}: run `make run`" in english
    assert f"缺少依赖包 {package}" in chinese
    assert all(line in english for line in (TORCH_LINE, OWN_LINE))


@pytest.mark.parametrize("module", ["qwen_aio.cli.serve", "json"])
def test_a_mistake_of_ours_keeps_its_traceback(module: str) -> None:
    ended = started("app.py", before=f"sys.modules[{module!r}] = None")
    assert ended.returncode == 1
    assert "Traceback" in ended.stderr
    assert "make run" not in ended.stderr
