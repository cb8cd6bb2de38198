"""The log: whatever is in an event, it is one line, as text and as JSON."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_aio.startup.log import JsonFormatter, TextFormatter, one_line

Log = Callable[[logging.Logger], None]


def written(formatter: logging.Formatter, log: Log) -> str:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    logger = logging.Logger("qwen_aio.test")
    logger.addHandler(handler)
    log(logger)
    return stream.getvalue()


HOSTILE = st.text(st.characters(codec=None), max_size=40) | st.sampled_from(
    ["a\r\n2026-01-01 ERROR forged", "\x1b[2K\x1b[1A", "a\u2028b", "a\x85b", "\u202egnp.exe", "\ud800"]
)


@given(HOSTILE)
def test_no_value_breaks_a_line(value):
    for formatter in (TextFormatter(), JsonFormatter()):
        line = written(formatter, lambda logger: logger.info("request refused id=%s path=%s", "r1", value))
        assert len(line.splitlines()) == 1 and line.endswith("\n")
        assert line[:-1].isprintable()


def test_json_has_the_fields_that_a_message_names():
    line = written(JsonFormatter(), lambda logger: logger.warning("request done id=%s tokens=%d", "r1", 7))
    event = json.loads(line)
    assert event.pop("time").endswith("+00:00")
    assert event == {
        "level": "warning",
        "logger": "qwen_aio.test",
        "message": "request done id=r1 tokens=7",
        "id": "r1",
        "tokens": 7,
    }


@pytest.mark.parametrize("message", ["plain", "%s is gone id=%s"])
def test_a_message_with_other_values_is_a_message_alone(message):
    values = ("a", "b") if "%s" in message else ()
    event = json.loads(written(JsonFormatter(), lambda logger: logger.info(message, *values)))
    assert event.keys() == {"time", "level", "logger", "message"}


def failing(logger: logging.Logger) -> None:
    try:
        raise ValueError("a\n2026-01-01 00:00:00,000 ERROR forged")
    except ValueError:
        logger.exception("a bug id=%s", "r1")


def test_a_traceback_cannot_pass_for_an_event():
    first, *rest = written(TextFormatter(), failing).splitlines()
    assert first.endswith("a bug id=r1")
    assert rest and all(line.startswith("    ") for line in rest)
    event = json.loads(written(JsonFormatter(), failing))
    assert (event["id"], "forged" in event["traceback"]) == ("r1", True)


def test_plain_text_stays_as_it_is():
    assert one_line("快递太慢了 ‘ok’ é") == "快递太慢了 ‘ok’ é"
    assert one_line("a\nb\t\x1b") == "a\\nb\\t\\x1b"
