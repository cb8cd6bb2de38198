"""What `qwen-aio` without arguments says, and how little it takes."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys

import pytest

from qwen_aio.cli.first_lines import CHINESE_LINES, ENGLISH_LINES
from qwen_aio.cli.parser import COMMANDS, parser_with

ENGLISH = """\
qwen-aio serve                               # the page: http://127.0.0.1:7860
qwen-aio run "late, but I love it" --reply   # ask once: a label and an answer
qwen-aio chat                                # a conversation in this terminal
qwen-aio cluster                             # workers, balancer, dashboard, page
qwen-aio classify FILE.csv -o labelled.csv   # label the column `text` of a file
"""
CHINESE = """\
qwen-aio serve                               # 网页：http://127.0.0.1:7860
qwen-aio run "快递太慢了，差评" --reply      # 问一句：标签和回复
qwen-aio chat                                # 在终端里对话
qwen-aio cluster                             # 多个实例、负载均衡器、仪表盘和网页
qwen-aio classify FILE.csv -o labelled.csv   # 给文件的 text 列逐行打标签
"""
HEAVY = {"aiohttp", "argparse", "asyncio", "fastapi", "jinja2", "numpy", "pydantic", "torch"}
LOADED = "print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)"
CODE = (
    f"import sys; sys.argv = ['qwen-aio']; from qwen_aio.doorway import start; status = start(); {LOADED}; exit(status)"
)


@pytest.mark.parametrize(("locale", "lines"), [("en_GB.UTF-8", ENGLISH), ("C", ENGLISH), ("zh_CN.UTF-8", CHINESE)])
def test_five_lines_come_in_the_operators_language_and_load_nothing(locale: str, lines: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", CODE], env=os.environ | {"LC_ALL": locale}, capture_output=True, encoding="utf-8"
    )
    assert (ended.returncode, ended.stdout) == (0, lines)
    assert lines.count("\n") == 5
    assert not HEAVY & set(ended.stderr.split())


@pytest.mark.parametrize("line", [*ENGLISH_LINES.splitlines(), *CHINESE_LINES.splitlines()])
def test_every_line_can_be_pasted(line: str) -> None:
    program, *arguments = shlex.split(line, comments=True)
    assert program == "qwen-aio"
    assert isinstance(parser_with(COMMANDS, program=program).parse_args(arguments), argparse.Namespace)
