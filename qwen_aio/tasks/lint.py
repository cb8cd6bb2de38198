"""Checks of a task before it runs: costs in tokens, and mistakes that a schema cannot find.

Counts with any encoder; runs no model.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Protocol

from jinja2 import Environment, meta

from qwen_aio.core import Segment, Task, Text
from qwen_aio.tasks.template import USER_VARIABLES, PromptTemplate

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
    # Of all branches, also those that do not run.
    variables = meta.find_undeclared_variables(Environment().parse(task.template))
    tail_tokens = _tail_tokens(template, encoder)
    return LintReport(
        task=task.name,
        prefix_tokens=len(encoder.encode(template.head)),
        tail_tokens=tail_tokens,
        problems=tuple(_problems(task, variables)),
        hints=tuple(_hints(task, variables, encoder, tail_tokens)),
    )


def _tail_tokens(template: PromptTemplate, encoder: Encoder) -> int:
    mark = "\u25c6"
    body = template.prompt(mark).body
    block = next(segment for segment in body if isinstance(segment, Text) and segment.can_cut)
    after_mark = Text(block.text.rpartition(mark)[2])
    return len(encoder.encode((after_mark, *body[body.index(block) + 1 :])))


def _problems(task: Task, variables: Set[str]) -> list[str]:
    unknown = sorted(variables - {*USER_VARIABLES, "labels"})
    problems = [f"prompt.j2 names an unknown variable: {name}" for name in unknown]
    if not task.golden:
        problems.append("no golden cases: a damaged model or template would go unnoticed (golden.jsonl)")
    return problems


def _hints(task: Task, variables: Set[str], encoder: Encoder, tail_tokens: int) -> list[str]:
    hints = []
    if tail_tokens > CHEAP_TAIL_TOKENS:
        hints.append(f"{tail_tokens} tokens after the text are paid on every request; shorten the answer block")
    if task.focus_words and "focus_words" not in variables:
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
