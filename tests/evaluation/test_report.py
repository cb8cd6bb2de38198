"""The three faces of an evaluation: lines, JSON, a page in which no text of a row is markup."""

import json
import re
from collections import Counter
from dataclasses import replace
from html import unescape

import pytest

from qwen_aio.evaluation.evaluation import Evaluation, SecondSubject, Subject, evaluation_to_json, lines
from qwen_aio.evaluation.metrics import compare_judged, metrics_of
from qwen_aio.evaluation.report import html
from qwen_aio.evaluation.share import Share
from qwen_aio.evaluation.threshold import find_threshold
from qwen_aio.evaluation.words import WORDS
from tests.evaluation.rows import LABELS, judged

HOSTILE = '<script>alert("x")</script>&amp;\u202e'
ROWS = tuple(
    judged(n, truth=LABELS[n % 3], label=LABELS[n % 3 if n % 4 else 0], probability=0.4 + n / 100, text=HOSTILE)
    for n in range(60)
)
SUBJECT = Subject("sentiment", "0123456789ab", "qwen-aio-bundled", is_calibrated=True)
FOUND = Evaluation(
    file="<b>rows</b>.csv",
    subject=SUBJECT,
    rows=ROWS,
    metrics=metrics_of(ROWS, LABELS),
    left_out=Counter({"'x' is no label": 3}),
    rows_per_s=123.4,
    flips={"upper case": Share(3, 60)},
    threshold=find_threshold(ROWS, 0.8),
    other=SecondSubject(replace(SUBJECT, model="other"), metrics_of(ROWS, LABELS), compare_judged(ROWS, ROWS)),
)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_page_is_whole_and_escapes_everything(language):
    page = html(FOUND, language=language)
    assert "<script" not in page and "<b>rows" not in page and "&lt;script&gt;" in page
    assert not re.search(r"https?://|src=|@import|url\(", page)
    assert page.count("<svg") == 2 and page.count("<circle") == len(FOUND.metrics.bins)
    assert all(
        word in unescape(page) for name, word in WORDS[language].items() if "{" not in word and name != "threshold_none"
    )


def test_an_evaluation_without_extras_has_a_page_too():
    bare = replace(FOUND, left_out=Counter(), flips={}, threshold=None, other=None)
    assert WORDS["en"]["flips"] not in html(bare, language="en")
    assert not any(line.startswith(("flips", "against", "right in")) for line in lines(bare))


def test_both_languages_have_the_same_words():
    assert WORDS["en"].keys() == WORDS["zh"].keys()


def test_the_json_holds_the_figures():
    raw = json.loads(evaluation_to_json(FOUND))
    assert raw["metrics"]["accuracy"]["value"] == FOUND.metrics.accuracy.value
    assert raw["flips"] == {"upper case": {"count": 3, "total": 60}}
    assert len(raw["mistakes"]) == min(20, sum(not row.is_right for row in ROWS))
    assert raw["other"]["difference"]["p_value"] == 1.0


def test_of_many_reasons_the_most_frequent_are_told():
    many = replace(FOUND, left_out=Counter({f"'{n}' is no label": n for n in range(1, 9)}))
    assert list(many.reasons.values()) == [8, 7, 6, 5, 4, 1 + 2 + 3]


def test_the_lines_say_what_was_left_out_and_that_rows_are_few():
    text = "\n".join(lines(FOUND))
    assert "left out: 3 rows ('x' is no label)" in text
    assert "too few" in text and "McNemar's p = 1" in text
