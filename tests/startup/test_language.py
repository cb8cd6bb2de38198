"""Which language a process has, and what it settles for where the console has no Chinese."""

from __future__ import annotations

import io
import sys

import pytest

from qwen_aio.startup.language import operators_language, settle_language

CHINESE_LOCALE = {"LANG": "zh_CN.UTF-8"}


@pytest.mark.parametrize(
    ("environment", "language"),
    [
        ({}, "en"),
        (CHINESE_LOCALE, "zh"),
        ({"LC_ALL": "C", "LANG": "zh_CN.UTF-8"}, "en"),
        ({"LC_ALL": "", "LC_MESSAGES": "zh_TW", "LANG": "en_GB"}, "zh"),
        ({"LC_ALL": "POSIX", "QWEN_AIO_LANG": "zh"}, "zh"),
        ({"QWEN_AIO_LANG": "en", **CHINESE_LOCALE}, "en"),
    ],
)
def test_the_variable_wins_over_the_locale(environment: dict[str, str], language: str) -> None:
    assert operators_language(environment) == language


@pytest.mark.parametrize(
    ("arguments", "language"),
    [
        ([], "zh"),
        (["serve", "--lang", "en"], "en"),
        (["--lang=en", "serve"], "en"),
        (["serve", "--la", "en"], "en"),  # as argparse would read it
        (["serve", "--lang", "zh", "--lang", "en"], "en"),
        (["serve", "--log-level", "en"], "zh"),
        (["service", "install", "--", "--lang", "en"], "zh"),  # the service's, not this command's
        (["run", "--lang"], "zh"),  # refused by the parser, in the language of the locale
        (["serve", "--lang", "fr"], "en"),  # refused as well
    ],
)
def test_the_flag_wins_wherever_it_stands(arguments: list[str], language: str) -> None:
    environment = dict(CHINESE_LOCALE)
    settle_language(arguments, environment)
    assert operators_language(environment) == language


@pytest.mark.parametrize(
    ("encoding", "language"), [("utf-8", "zh"), ("cp936", "zh"), ("ascii", "en"), ("cp1252", "en"), ("nonsense", "en")]
)
def test_a_console_without_chinese_gets_english(monkeypatch: pytest.MonkeyPatch, encoding: str, language: str) -> None:
    class Console(io.StringIO):
        pass

    Console.encoding = encoding  # type: ignore[misc, assignment]
    monkeypatch.setattr(sys, "stderr", Console())
    environment = dict(CHINESE_LOCALE)
    settle_language(["--lang", "zh"], environment)
    assert operators_language(environment) == language


def test_a_process_without_streams_has_a_language(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    environment = dict(CHINESE_LOCALE)
    settle_language([], environment)
    assert operators_language(environment) == "zh"
