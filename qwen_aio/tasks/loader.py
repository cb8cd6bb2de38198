"""prompts/<task>/ -> Task, validated; every error names the file.

Knows golden.jsonl; task_file.py knows task.toml, calibration_file.py calibration.json, template.py prompt.j2.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from qwen_aio.core import GoldenCase, Label, Rule, Sampling, SamplingWish, Task, TaskKind
from qwen_aio.errors import InvalidTask
from qwen_aio.files import read_text
from qwen_aio.safeguards import OpeningCheck, SafetyPolicy
from qwen_aio.tasks.calibration_file import CALIBRATION_FILE, parse_calibrations
from qwen_aio.tasks.task_file import NAME, Table, TaskFile, parse_task_file
from qwen_aio.tasks.template import PromptTemplate
from qwen_aio.visible import has_visible


class _GoldenLine(Table):
    text: str
    answer: Annotated[str, Field(min_length=1)] | None = None


def load_tasks(prompts_dir: Path) -> dict[str, Task]:
    """Every folder in `prompts_dir` that holds a task.toml, by name. Raises InvalidTask."""
    if not prompts_dir.is_dir():
        raise InvalidTask(f"no folder of tasks at {prompts_dir}; point --prompts-dir at one")
    tasks = {path.parent.name: load_task(path.parent) for path in sorted(prompts_dir.glob("*/task.toml"))}
    if not tasks:
        raise InvalidTask(f"{prompts_dir} holds no task: a task is a folder with task.toml and prompt.j2")
    for task in tasks.values():
        _check_companion(task, tasks)
    if len(checking := [task.name for task in tasks.values() if task.safety]) > 1:
        raise InvalidTask(f"{' and '.join(checking)} both have a table [safety]; one task checks all messages")
    return tasks


def load_task(folder: Path) -> Task:
    """The task in `folder`. Raises InvalidTask, which names the file, the line and the mistake."""
    if not re.fullmatch(NAME, folder.name) or folder.name == "auto":
        raise InvalidTask(f"{folder}: a task is named by small letters, digits and underscores, and not 'auto'")
    source = _read(folder / "task.toml")
    template = _read(folder / "prompt.j2")
    calibration = _read(path) if (path := folder / CALIBRATION_FILE).exists() else ""
    file = parse_task_file(folder / "task.toml", source)
    task = Task(
        name=folder.name,
        kind=file.kind,
        title=file.title,
        template=template,
        hash=task_hash(source, template, calibration),
        labels=tuple(Label(**label.model_dump()) for label in file.labels),
        **file.confidence.model_dump(),
        neutral=file.neutral.label if file.neutral else None,
        neutral_below=file.neutral.below if file.neutral else 0.0,
        text_format=file.text_format,
        merged_format=file.merged_format,
        focus_words=file.focus_words,
        companion=file.companion,
        sampling=Sampling().override(SamplingWish(**file.sampling.model_dump())),
        rules=tuple(Rule(task=folder.name, **rule.model_dump()) for rule in file.rules),
        golden=_golden_cases(folder / "golden.jsonl", file.kind),
        calibration=parse_calibrations(path, calibration, [label.name for label in file.labels]),
        safety=_safety_policy(file),
        opening=OpeningCheck(**file.opening.model_dump()) if file.opening else None,
        method=file.method,
    )
    PromptTemplate(task)  # a broken template fails now, not after minutes of loading a model
    return task


def task_hash(source: str, template: str, calibration: str = "") -> str:
    """Twelve hex digits over the files that determine prompt and scores. Line ends do not count."""
    text = "\0".join(part.replace("\r\n", "\n") for part in (source, template, calibration) if part)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def tasks_hash(tasks: Mapping[str, Task]) -> str:
    """One hash over all tasks, for status.json: workers with equal hashes give the same prompts."""
    return hashlib.sha256("".join(f"{name}:{tasks[name].hash};" for name in sorted(tasks)).encode()).hexdigest()[:12]


def _read(path: Path) -> str:
    try:
        return read_text(path)
    except (OSError, ValueError) as exc:
        raise InvalidTask(f"{path} cannot be read: {exc}") from exc


def _check_companion(task: Task, tasks: Mapping[str, Task]) -> None:
    if task.companion is None:
        return
    other = tasks.get(task.companion)
    if other is None or other.kind == task.kind:
        wanted = "generation" if task.kind == "decision" else "decision"
        raise InvalidTask(f"task {task.name}: companion {task.companion!r} must be an existing task of kind {wanted}")


def _safety_policy(file: TaskFile) -> SafetyPolicy | None:
    if file.safety is None or not file.safety.enabled:
        return None
    harmless = next(label.name for label in file.labels if label.name not in file.safety.replies)
    return SafetyPolicy(harmless, file.safety.replies, file.safety.patterns)


def _golden_cases(path: Path, kind: TaskKind) -> tuple[GoldenCase, ...]:
    cases = []
    lines = _read(path).split("\n") if path.exists() else []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            case = _GoldenLine.model_validate_json(line)
        except ValidationError as exc:
            found = "; ".join(f"{'.'.join(map(str, error['loc'])) or 'line'}: {error['msg']}" for error in exc.errors())
            raise InvalidTask(f'{path}:{number}: a golden case is {{"text": ..., "answer": ...}}: {found}') from exc
        if (case.answer is None) != (kind == "decision"):
            raise InvalidTask(f"{path}:{number}: an answer is given exactly in the cases of a task that generates")
        if not has_visible(case.text):
            raise InvalidTask(f"{path}:{number}: the text of this golden case has no visible character")
        cases.append(GoldenCase(case.text, case.answer))
    return tuple(cases)
