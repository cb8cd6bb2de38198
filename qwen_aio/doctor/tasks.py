"""The tasks of a start, and whether their golden cases are recorded for its model, kernel and precision."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from qwen_aio.core import Task
from qwen_aio.doctor.finding import Finding
from qwen_aio.tasks.lint import LintReport
from qwen_aio.worker.golden_book import GoldenRecord

Records = Mapping[str, Mapping[str, GoldenRecord | None]]  # precision -> task -> what its answers are compared with


def task_findings(tasks: Mapping[str, Task], reports: Iterable[LintReport], *, folder: Path) -> list[Finding]:
    """A line for each mistake."""
    problems = [
        Finding("problem", f"task {report.task}: {problem}", f"change it in {folder / report.task}")
        for report in reports
        for problem in report.problems
    ]
    return problems or [Finding("ok", f"{len(tasks)} tasks in {folder}: {', '.join(tasks)}")]


def golden_findings(tasks: Mapping[str, Task], records: Records, *, model_sha: str) -> list[Finding]:
    """Whether a start would notice that the model answers otherwise."""
    if not records:
        return [Finding("note", "records of int8 by torch are not looked up here; a start does")]
    every = [record for by_task in records.values() for record in by_task.values() if record is not None]
    if any(record.model_sha != model_sha for record in every):
        return [Finding("note", "the records are of other model files than these", "see hashes")]
    with_cases = [task for task in tasks.values() if task.golden]
    exact = {
        precision: {task.name for task in with_cases if _is_exact(by_task[task.name], task, precision)}
        for precision, by_task in records.items()
    }
    best = max(exact, key=lambda precision: len(exact[precision]))
    if len(exact[best]) < len(with_cases):
        return _missing([task for task in with_cases if task.name not in exact[best]], records[best], precision=best)
    complete = [precision for precision, names in exact.items() if len(names) == len(with_cases)]
    others = [precision for precision in exact if precision not in complete]
    found = f"recorded for this model in {' and '.join(complete)}"
    if not others:
        return [Finding("ok", found)]
    return [Finding("ok", f"{found}; a start in {' or '.join(others)} compares labels alone, or records its own")]


def _is_exact(record: GoldenRecord | None, task: Task, precision: str) -> bool:
    return record is not None and record.is_of(task, precision) and record.covers(task)


def _missing(tasks: Sequence[Task], records: Mapping[str, GoldenRecord | None], *, precision: str) -> list[Finding]:
    """A line for all that were never recorded, and one for each that was recorded otherwise."""
    otherwise = [_otherwise(task, record, precision=precision) for task in tasks if (record := records[task.name])]
    never = ", ".join(task.name for task in tasks if records[task.name] is None)
    if not never:
        return otherwise
    found = f"not recorded for this model in {precision}: {never}"
    how = "the first start records its answers, whatever they are: look at some of them"
    return [*otherwise, Finding("note", found, how)]


def _otherwise(task: Task, record: GoldenRecord, *, precision: str) -> Finding:
    """What a start does without the exact record."""
    if record.task_hash != task.hash:
        changed = f"task {task.name} was changed since it was recorded: a start compares labels alone"
        return Finding("note", changed, f"if that is meant, qwen-aio tasks lint {task.name} --accept")
    if record.precision != precision:
        elsewhere = f"task {task.name} is recorded in {record.precision}, not in {precision}"
        return Finding("note", elsewhere, "the first start compares labels alone, and records its answers")
    return Finding("note", f"task {task.name} has other golden cases than are recorded", "the next start records them")
