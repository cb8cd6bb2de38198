"""Every sentence that operators read is in the table of Chinese ones, and comes out of it whole."""

from __future__ import annotations

import argparse
import ast
import errno
import inspect
import os
import re
from functools import cache
from string import Formatter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import PydanticKnownError

from qwen_aio.startup.messages import TABLE, Shape, columns, in_chinese, read_table, say, translated
from tests.sentences import Sentences, texts_of

# What pydantic may find wrong with a setting, and what it tells of it.
OF_SETTINGS = [
    *((kind, None) for kind in ("missing", "extra_forbidden", "tuple_type", "string_type")),
    *((kind, None) for kind in ("int_type", "int_parsing", "float_type", "float_parsing", "bool_type", "bool_parsing")),
    *(("less_than_equal", {"le": 1}), ("greater_than_equal", {"ge": 1}), ("greater_than", {"gt": 1})),
    *(("literal_error", {"expected": "x"}), ("value_error", {"error": ValueError("x")})),
]


@pytest.fixture(autouse=True)
def chinese(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QWEN_AIO_LANG", "zh")


@cache
def sentences() -> Sentences:
    return Sentences()


@cache
def table() -> dict[str, str]:
    return read_table()


def names_in(template: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(template) if name is not None}


def test_every_sentence_has_a_translation() -> None:
    known = {Shape.of(english).texts for english in table()}
    missing = [
        f'"{template}" = ""  # {where}'
        for template, where in sentences().found.items()
        if texts_of(template) not in known
    ]
    assert not missing, f"add to {TABLE}, with names that tell what stands there:\n" + "\n".join(missing)


def test_what_is_printed_is_said_in_the_operators_language() -> None:
    assert not sentences().printed, "`say` it, or print what `translated` gives"


def test_no_translation_is_left_of_a_sentence_that_is_gone() -> None:
    ours = {english for english in table() if Shape.of(english).texts not in sentences_of_libraries()}
    found = [Shape.of(template) for template in sentences().found]
    stale = [
        english
        for english in ours
        if Shape.of(english).texts not in sentences().shapes
        and all(shape.values_in(english) is None for shape in found)
    ]
    assert not stale, "\n".join(stale)


@pytest.mark.parametrize("english", table())
def test_a_translation_is_chinese_and_says_as_much(english: str) -> None:
    assert names_in(table()[english]) | {"s"} == names_in(english) | {"s"}, "but for a plural"
    assert table()[english].count("%%") == english.count("%%")
    assert re.search("[a-z]{2}", "".join(Shape.of(english).texts)), "a shape of signs alone may be anybody's"


@pytest.mark.parametrize("english", table())
def test_a_sentence_is_found_by_its_shape_whatever_is_in_it(english: str) -> None:
    values = {name: f"«{number}»" for number, name in enumerate(Shape.of(english).names)}
    assert in_chinese(english.format(**values)) == table()[english].format(**values)


@given(st.text(), st.text(), st.sampled_from(sorted(table())))
def test_any_text_may_stand_in_a_sentence_and_none_of_it_is_lost(one: str, other: str, english: str) -> None:
    shape = Shape.of(english)
    values = dict(zip(shape.names, [one, other] * len(shape.names), strict=False))
    message = english.format(**values)
    assert in_chinese(one) == one or one in sentences_as_they_are()
    assert isinstance(in_chinese(message), str)
    found = shape.values_in(message)
    assert found is not None and english.format(**found) == message


def sentences_as_they_are() -> set[str]:
    return {english for english in table() if not names_in(english)}


@cache
def sentences_of_libraries() -> set[tuple[str, ...]]:
    """Of argparse, pydantic and the system, as they are in what is installed here."""
    strings = [
        node.value for node in ast.walk(ast.parse(inspect.getsource(argparse))) if isinstance(node, ast.Constant)
    ]
    of_argparse = [re.sub(r"%\(?(\w+)\)?[sr]?", "{x}", text.rstrip("\n")) for text in strings if isinstance(text, str)]
    known = [PydanticKnownError(kind, context) for kind, context in OF_SETTINGS]  # type: ignore[arg-type]
    of_pydantic = [f"{{field}}: {each.message_template}" for each in known] + ["{field}: Input is not a valid path"]
    of_system = [*map(os.strerror, errno.errorcode), "[Errno {x}] {x}: {x}", "Name or service not known"]
    return {texts_of(text) for text in (*of_argparse, *of_pydantic, *of_system)}


def test_a_value_that_is_a_sentence_is_looked_up_too() -> None:
    refused = "port: Input should be less than or equal to 65535 (from flags, QWEN_AIO_* variables or /etc/qwen.toml)"
    assert translated(refused) == "port：不能大于 65535（来自参数、QWEN_AIO_* 环境变量或 /etc/qwen.toml）"
    memory = "memory: needs up to 9 MB in int8 (weights 1, keys and values 3, everything else 5); 7 MB are available on this machine"
    assert translated(memory) == "内存：需要最多 9 MB（int8；权重 1，键和值 3，其余 5）；本机可用 7 MB"
    failed = "/srv/status.json cannot be read: [Errno 13] Permission denied: '/srv/status.json'; choose another"
    assert translated(failed) == "无法读取 /srv/status.json：权限不足：'/srv/status.json'（Errno 13）；请换一个"


def test_a_line_of_two_sentences_is_joined_as_the_language_does(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    say("balancer, policy weighted", "open http://127.0.0.1:8000")
    monkeypatch.setenv("QWEN_AIO_LANG", "en")
    say("balancer, policy weighted", "open http://127.0.0.1:8000")
    assert capsys.readouterr().out == (
        "负载均衡器，策略 weighted；请打开 http://127.0.0.1:8000\nbalancer, policy weighted; open http://127.0.0.1:8000\n"
    )


def test_what_is_not_in_the_table_stays_as_it_is() -> None:
    assert translated("nobody has written this yet") == "nobody has written this yet"


def test_a_sentence_of_sentences_without_end_is_no_trouble() -> None:
    endless = "argument a: " * 100_000
    assert translated(endless).startswith("参数 a：参数 a：")


def test_a_chinese_letter_takes_two_columns() -> None:
    assert columns("正在加载 torch") == 8 + 6
