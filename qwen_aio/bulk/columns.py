"""The columns that a task adds to a table."""

from __future__ import annotations

from collections.abc import Sequence

from qwen_aio.bulk.asking import Labelled
from qwen_aio.core import Task

UTF8_MARK = "\ufeff"  # what is written begins with it where the table is not plain UTF-8: it came from Excel


def added_columns(columns: Sequence[str], task: Task) -> tuple[str, ...]:
    """The names of the new columns; one that is taken gets the task's name in front."""
    names = ("label", "probability", "confidence", "error") if task.kind == "decision" else ("answer", "error")
    return tuple(f"{task.name}_{name}" if name in columns else name for name in names)


def added_values(labelled: Labelled, task: Task) -> tuple[object, ...]:
    """Of the new columns, in their order."""
    result = labelled.result
    if task.kind == "generation":
        return (result.answer.text if result and result.answer else None, labelled.fault)
    decision = result.decision if result else None
    if decision is None:
        return (None, None, None, labelled.fault)
    return (decision.label, round(decision.scores[decision.label], 4), decision.confidence, None)
