"""Checks of a task before it runs: costs in tokens, and mistakes that a schema cannot find.

Counts with any encoder; runs no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from jinja2 import Environment, TemplateSyntaxError, meta

from qwen_aio.core import Segment, Task, Text
from qwen_aio.tasks.template import USER_VARIABLES, PromptTemplate

KNOWN_VARIABLES = frozenset({*USER_VARIABLES, "labels"})
CHEAP_TAIL_TOKENS = 16  # beyond this the tail costs more than a short message itself


class Encoder(Protocol):
    """Segments -> token ids, as a model's tokenizer does it."""

    def encode(self, segments: Sequence[Segment]) -> list[int]:
        """Ids of the segments, one after another."""


@dataclass(frozen=True)
class LintReport:
    """Findings about one task. With an empty `problems` it may run; `hints` are worth a look."""

    task: str
    prefix_tokens: int  # the fixed part: computed once at start
    tail_tokens: int  # after the text: paid on every request
    problems: tuple[str, ...]
    hints: tuple[str, ...]


def lint(task: Task, encoder: Encoder) -> LintReport:
    """The findings about `task`. Raises InvalidTask if the template does not render."""
    template = PromptTemplate(task)
    tail_tokens = _tail_tokens(template, encoder)
    return LintReport(
        task=task.name,
        prefix_tokens=len(encoder.encode(template.head)),
        tail_tokens=tail_tokens,
        problems=tuple(_problems(task)),
        hints=tuple(_hints(task, encoder, tail_tokens)),
    )


def unknown_variables(task: Task) -> list[str]:
    """Variables of the template without a value, also in branches that did not run."""
    return sorted(_variables(task) - KNOWN_VARIABLES)


def _variables(task: Task) -> set[str]:
    """The variables that the template takes from outside."""
    try:
        return meta.find_undeclared_variables(Environment().parse(task.template))
    except TemplateSyntaxError:
        return set()  # compiling the template reports it


def _tail_tokens(template: PromptTemplate, encoder: Encoder) -> int:
    mark = "\u25c6"
    body = template.prompt(mark).body
    text = next(index for index, segment in enumerate(body) if isinstance(segment, Text) and segment.can_cut)
    block = body[text]
    assert isinstance(block, Text)
    after_mark = Text(block.text.rpartition(mark)[2])
    return len(encoder.encode((after_mark, *body[text + 1 :])))


def _problems(task: Task) -> list[str]:
    problems = [f"prompt.j2 names an unknown variable: {name}" for name in unknown_variables(task)]
    if not task.golden:
        problems.append("no golden cases: a damaged model or template would go unnoticed (golden.jsonl)")
    return problems


def _hints(task: Task, encoder: Encoder, tail_tokens: int) -> list[str]:
    hints = []
    if tail_tokens > CHEAP_TAIL_TOKENS:
        hints.append(f"{tail_tokens} tokens after the text are paid on every request; shorten the answer block")
    if task.focus_words and "focus_words" not in _variables(task):
        hints.append("focus_words do nothing: prompt.j2 does not name them in the block user")
    first: dict[int, str] = {}
    for label in task.labels:
        ids = encoder.encode((Text(label.text),))
        if len(ids) > 1:
            hints.append(f"label {label.text!r} has {len(ids)} tokens; one is cheaper")
        if ids[0] in first:
            hints.append(f"labels {first[ids[0]]!r} and {label.text!r} share their first token")
        first.setdefault(ids[0], label.text)
    return hints
