"""Help and refusals of the parser in both languages, and lines as wide as the terminal in either."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_aio.cli.parser import COMMANDS, parser_with
from qwen_aio.startup.arguments import ArgumentParser, wrapped
from qwen_aio.startup.messages import columns

CHINESE = {"QWEN_AIO_LANG": "zh"}
EXAMPLES = ("echo ", "python ", "qwen-aio ", "sudo ")  # lines to paste
LATIN = re.compile(r"[A-Za-z][a-z]+(?: [a-z]{2,}){2,}")  # names of commands and settings are no such row of words


def run(
    *arguments: str, program: tuple[str, ...] = ("-m", "qwen_aio.cli.main"), **environment: str
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, *program, *arguments], env=os.environ | environment, capture_output=True)


def parsers_below(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    inner = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return [parser, *(each for action in inner for below in action.choices.values() for each in parsers_below(below))]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_is_chinese_and_fits_the_terminal(
    monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("QWEN_AIO_LANG", "zh")
    monkeypatch.setenv("COLUMNS", "100")
    for parser in parsers_below(parser_with([command], program="qwen-aio")):
        text = parser.format_help()
        _, _, explained = text.partition("\n\n")
        assert text.startswith("用法：")
        prose = [line for line in explained.splitlines() if not line.startswith(EXAMPLES)]
        assert not LATIN.findall(re.sub("`[^`]+`", "", "\n".join(prose))), text
        flags = explained.partition("选项:\n")[2].splitlines()
        assert all(columns(line) <= 100 for line in flags if line.startswith(" " * 24))


def test_help_is_english_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QWEN_AIO_LANG", "en")
    text = parser_with(["chat"], program="qwen-aio").format_help()
    assert text.startswith("usage: qwen-aio")
    assert not re.search("[\u4e00-\u9fff]", text)


def test_every_command_has_the_flag() -> None:
    for parser in parsers_below(parser_with(COMMANDS, program="qwen-aio")):
        assert any("--lang" in action.option_strings for action in parser._actions), parser.prog


@pytest.mark.parametrize(
    ("arguments", "refusal"),
    [
        ([], "缺少参数：text"),
        (["a", "--nonsense"], "无法识别的参数：--nonsense"),
        (["a", "--seed", "x"], "参数 --seed：'x' 不是有效的 int 值"),
        (["a", "--seed"], "参数 --seed：需要一个值"),
        (["a", "--lang", "fr"], "参数 --lang：没有 'fr' 这个选项（可选：'zh', 'en'）"),
        (["a", "--m", "x"], "--m 有歧义，可能是 --max-tokens, --mode, --max-context"),
        (["a", "--json=1"], "参数 --json：这个参数不带值：'1'"),
    ],
)
def test_a_mistake_is_named_in_chinese(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str], refusal: str
) -> None:
    monkeypatch.setenv("QWEN_AIO_LANG", "zh")
    parser = ArgumentParser(prog="run")
    parser.add_argument("text")
    for flag in ("--max-tokens", "--mode", "--max-context"):
        parser.add_argument(flag)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--json", action="store_true")
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"run：错误：{refusal}"


@given(st.text(alphabet=st.sampled_from("中文，。 ab-字")), st.integers(min_value=4, max_value=40))
def test_no_line_is_wider_and_no_letter_is_lost(text: str, width: int) -> None:
    lines = wrapped(text, width)
    assert "".join("".join(lines).split()) == "".join(text.split())
    for line in lines:
        longest = max((columns(word) for word in re.findall(r"[!-~]+", line)), default=0)
        is_punctuated = line.rstrip("，。") != line
        assert columns(line) <= max(width, longest) or is_punctuated
        assert line[:1] not in ("，", "。") or len(lines) == 1 or line == lines[0]


def test_a_process_refuses_in_the_language_that_was_asked_for(tmp_path: Path) -> None:
    home = {"QWEN_AIO_HOME": str(tmp_path), "LC_ALL": "C.UTF-8"}
    arguments = ("keys", "list", "--config", str(tmp_path / "none.toml"))
    english, by_flag, by_locale, ascii_console, cp936_console = (
        run(*arguments, **home),
        run(*arguments, "--lang", "zh", **home),
        run(*arguments, **home | {"LC_ALL": "zh_CN.UTF-8"}),
        run(*arguments, "--lang", "zh", **home | {"PYTHONIOENCODING": "ascii"}),
        run(*arguments, "--lang", "zh", **home | {"PYTHONIOENCODING": "cp936"}),
    )
    in_english = f"qwen-aio: no settings file at {tmp_path}/none.toml\n"
    in_chinese = f"qwen-aio: 没有设置文件 {tmp_path}/none.toml\n"
    assert english.returncode == by_flag.returncode == ascii_console.returncode == 1
    assert (english.stderr.decode(), by_flag.stderr.decode()) == (in_english, in_chinese)
    assert (by_locale.stderr.decode(), ascii_console.stderr.decode()) == (in_chinese, in_english)
    assert cp936_console.stderr.decode() == in_chinese
