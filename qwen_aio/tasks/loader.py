"""prompts/<task>/ -> Task, validated; every error names the file and the line.

Knows the format of task.toml and golden.jsonl; template.py knows that of prompt.j2.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from qwen_aio.bounds import MAX_STOPS, SamplingNumbers, StopString
from qwen_aio.core import GoldenCase, Label, Rule, Sampling, SamplingWish, Task, TaskKind
from qwen_aio.errors import InvalidTask
from qwen_aio.files import read_text
from qwen_aio.tasks.template import PromptTemplate
from qwen_aio.visible import has_visible

NAME = r"[a-z][a-z0-9_]{0,31}"

Probability = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=f"^{NAME}$")]
Words = tuple[Annotated[str, Field(min_length=1, max_length=200)], ...]


class _Table(BaseModel):
    """A TOML table: unknown keys are mistakes, not extensions."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class _Label(_Table):
    name: Name
    text: Annotated[str, Field(min_length=1, max_length=40)]
    emoji: str


class _Confidence(_Table):
    high: Probability = 0.85
    medium: Probability = 0.6


class _Neutral(_Table):
    label: str
    below: Probability


class _Sampling(_Table, SamplingNumbers):
    stop: Annotated[tuple[StopString, ...], Field(max_length=MAX_STOPS)] | None = None


class _Rule(_Table):
    name: Name
    priority: int
    words: Words = ()
    patterns: tuple[str, ...] = ()
    min_chars: int | None = None
    max_chars: int | None = None
    min_words: int | None = None
    max_words: int | None = None
    reply: Annotated[str, Field(min_length=1), AfterValidator(str.strip)] | None = None


class _TaskFile(_Table):
    kind: TaskKind
    title: dict[str, str]
    companion: str | None = None
    labels: tuple[_Label, ...] = ()
    confidence: _Confidence = _Confidence()
    neutral: _Neutral | None = None
    text_format: str = "{label}"
    merged_format: str = "{emoji} {label}"
    focus_words: Words = ()
    sampling: _Sampling = _Sampling()
    rules: tuple[_Rule, ...] = ()


class _GoldenLine(_Table):
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
    return tasks


def load_task(folder: Path) -> Task:
    """The task in `folder`. Raises InvalidTask, which names the file, the line and the mistake."""
    if not re.fullmatch(NAME, folder.name) or folder.name == "auto":
        raise InvalidTask(f"{folder}: a task is named by small letters, digits and underscores, and not 'auto'")
    source = _read(folder / "task.toml")
    template = _read(folder / "prompt.j2")
    file = _parse(folder / "task.toml", source)
    _check_meaning(folder / "task.toml", file)
    task = Task(
        name=folder.name,
        kind=file.kind,
        title=file.title,
        template=template,
        hash=task_hash(source, template),
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
    )
    PromptTemplate(task)  # a broken template fails now, not after minutes of loading a model
    return task


def task_hash(source: str, template: str) -> str:
    """Twelve hex digits over the two files that determine the prompt. Line ends do not count."""
    text = "\0".join(part.replace("\r\n", "\n") for part in (source, template))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def tasks_hash(tasks: Mapping[str, Task]) -> str:
    """One hash over all tasks, for status.json: workers with equal hashes give the same prompts."""
    return hashlib.sha256("".join(f"{name}:{tasks[name].hash};" for name in sorted(tasks)).encode()).hexdigest()[:12]


def _read(path: Path) -> str:
    try:
        return read_text(path)
    except (OSError, ValueError) as exc:
        raise InvalidTask(f"{path} cannot be read: {exc}") from exc


def _parse(path: Path, source: str) -> _TaskFile:
    try:
        return _TaskFile.model_validate(tomllib.loads(source))
    except (tomllib.TOMLDecodeError, RecursionError) as exc:
        raise InvalidTask(f"{path} is not TOML: {exc}") from exc
    except ValidationError as exc:
        raise InvalidTask("; ".join(_describe(path, source, error) for error in exc.errors())) from exc


def _describe(path: Path, source: str, error: Mapping[str, Any]) -> str:
    where = ".".join(str(part) for part in error["loc"])
    message = "unknown key" if error["type"] == "extra_forbidden" else error["msg"].lower()
    return f"{path}:{_line_of(source, error['loc'])}: {where}: {message}"


def _line_of(source: str, place: Sequence[str | int]) -> int:
    """The line of the value at `place`, e.g. ("rules", 1, "max_chars"), or one near it."""
    lines = [line.split("#")[0] for line in source.splitlines()]
    at = 0
    for part, following in zip(place, (*place[1:], None), strict=True):
        if isinstance(part, str):
            at = _find_key(lines, part, start=at, skip=following if isinstance(following, int) else 0)
    return at + 1


def _find_key(lines: Sequence[str], key: str, *, start: int, skip: int) -> int:
    """Index of the line of `key`, a table or a value, after `skip` tables of that name."""
    header = re.compile(rf"\s*\[+\s*{re.escape(key)}\s*\]+")
    value = re.compile(rf"""(^|[\s{{,"'])({re.escape(key)})["']?\s*=""")
    headers = [number for number, line in enumerate(lines) if number >= start and header.match(line)]
    if len(headers) > skip:
        return headers[skip]
    return next((number for number, line in enumerate(lines) if number >= start and value.search(line)), start)


def _check_meaning(path: Path, file: _TaskFile) -> None:
    """Checks that a schema cannot express. Raises InvalidTask."""
    names = [label.name for label in file.labels]
    texts = [label.text for label in file.labels]
    if file.kind == "decision" and len(names) < 2:
        raise InvalidTask(f"{path}: a decision needs at least two labels")
    if file.kind == "generation" and names:
        raise InvalidTask(f"{path}: labels belong to a decision; this task generates")
    if len(set(names)) < len(names) or len(set(texts)) < len(texts):
        raise InvalidTask(f"{path}: labels must differ in name and in text")
    if file.neutral and file.neutral.label not in names:
        raise InvalidTask(f"{path}: neutral.label {file.neutral.label!r} is not one of {', '.join(names)}")
    if file.confidence.medium > file.confidence.high:
        raise InvalidTask(f"{path}: confidence.medium {file.confidence.medium} lies above high {file.confidence.high}")
    _check_formats(path, file)
    for rule in file.rules:
        _check_rule(path, file, rule)


def _check_formats(path: Path, file: _TaskFile) -> None:
    try:
        file.text_format.format(label="", confidence="")
        file.merged_format.format(emoji="", label="", confidence="")
    except (KeyError, IndexError, ValueError, AttributeError) as exc:
        raise InvalidTask(
            f"{path}: text_format and merged_format know {{label}}, {{confidence}}, {{emoji}}: {exc}"
        ) from exc


def _check_rule(path: Path, file: _TaskFile, rule: _Rule) -> None:
    for pattern in rule.patterns:
        try:
            re.compile(pattern)
        except re.error as exc:
            raise InvalidTask(
                f"{path}: rule {rule.name}: pattern {pattern!r} is not a regular expression: {exc}"
            ) from exc
    limits = (rule.min_chars, rule.max_chars, rule.min_words, rule.max_words)
    if not rule.words and not rule.patterns and all(limit is None for limit in limits):
        raise InvalidTask(f"{path}: rule {rule.name} has no condition and would take every message")
    if rule.reply is not None and file.kind == "decision":
        raise InvalidTask(f"{path}: rule {rule.name}: only a task that generates can have a fixed reply")


def _check_companion(task: Task, tasks: Mapping[str, Task]) -> None:
    if task.companion is None:
        return
    other = tasks.get(task.companion)
    if other is None or other.kind == task.kind:
        wanted = "generation" if task.kind == "decision" else "decision"
        raise InvalidTask(f"task {task.name}: companion {task.companion!r} must be an existing task of kind {wanted}")


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
