import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from qwen_aio.core import Label, Segment, Text
from qwen_aio.tasks.lint import lint
from qwen_aio.tasks.loader import load_tasks

SENTIMENT = load_tasks(Path("prompts"))["sentiment"]


class Characters:
    """An encoder with one token per character."""

    def encode(self, segments: Sequence[Segment]) -> list[int]:
        return [ord(c) for segment in segments for c in (segment.text if isinstance(segment, Text) else "\x00")]


def test_costs_are_counted_where_they_are_paid():
    report = lint(SENTIMENT, Characters())
    tail = "\x00\n\x00assistant\n【情感】:"
    assert report.tail_tokens == len(tail)
    assert report.prefix_tokens > 30
    assert report.problems == ()


def test_text_after_the_users_words_counts_as_tail():
    longer = replace(SENTIMENT, template=SENTIMENT.template.replace("{{ text }}", "{{ text }}请判断"))
    assert lint(longer, Characters()).tail_tokens == lint(SENTIMENT, Characters()).tail_tokens + 3


def test_an_unknown_variable_in_a_branch_that_did_not_run_is_found():
    hidden = replace(
        SENTIMENT, template=SENTIMENT.template.replace("{{ text }}", "{{ text }}{% if feeling %}{{ mood }}{% endif %}")
    )
    assert any("mood" in problem for problem in lint(hidden, Characters()).problems)


def test_labels_that_share_a_first_token_and_missing_golden_cases_are_reported():
    labels = (Label("a", "好评", ""), Label("b", "好的", ""))
    report = lint(replace(SENTIMENT, labels=labels, golden=()), Characters())
    assert any("share their first token" in hint for hint in report.hints)
    assert any("golden" in problem for problem in report.problems)


def test_focus_words_that_the_template_does_not_name_are_reported():
    deaf = replace(
        SENTIMENT, template=re.sub(r"{% if focus_words %}.*?{% endif %}", "", SENTIMENT.template, flags=re.S)
    )
    assert any("focus_words do nothing" in hint for hint in lint(deaf, Characters()).hints)
    assert not any("focus_words" in hint for hint in lint(SENTIMENT, Characters()).hints)
    assert not any("focus_words" in hint for hint in lint(replace(deaf, focus_words=()), Characters()).hints)
