"""task.toml: its tables and keys, and what they must not say; every error names the file and the line."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from qwen_aio.bounds import MAX_STOPS, SamplingNumbers, StopString
from qwen_aio.core import Method, TaskKind
from qwen_aio.errors import InvalidTask
from qwen_aio.language import Language

NAME = r"[a-z][a-z0-9_]{0,31}"
Probability = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=f"^{NAME}$")]
Words = tuple[Annotated[str, Field(min_length=1, max_length=200)], ...]
Stripped = Annotated[str, Field(min_length=1), AfterValidator(str.strip)]


def _is_regular(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as exc:
        raise ValueError(f"{pattern!r} is not a regular expression: {exc}") from exc
    return pattern


def _is_in_both(texts: dict[Language, str]) -> dict[Language, str]:
    if missing := sorted({"en", "zh"} - texts.keys()):
        raise ValueError(f"lacks the text in {missing[0]}")
    return texts


Pattern = Annotated[str, AfterValidator(_is_regular)]
InBoth = Annotated[dict[Language, Stripped], AfterValidator(_is_in_both)]


class Table(BaseModel):
    """A TOML table: unknown keys are mistakes, not extensions."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class _Label(Table):
    name: Name
    text: Annotated[str, Field(min_length=1, max_length=40)]
    emoji: str


class _Confidence(Table):
    high: Probability = 0.85
    medium: Probability = 0.6


class _Neutral(Table):
    label: str
    below: Probability


class _Sampling(Table, SamplingNumbers):
    stop: Annotated[tuple[StopString, ...], Field(max_length=MAX_STOPS)] | None = None


class _Rule(Table):
    name: Name
    priority: int
    words: Words = ()
    patterns: tuple[Pattern, ...] = ()
    min_chars: int | None = None
    max_chars: int | None = None
    min_words: int | None = None
    max_words: int | None = None
    reply: Stripped | None = None


class _Safety(Table):
    """Labels in the order of `replies`: the gravest first."""

    enabled: bool = True
    replies: dict[Name, InBoth]
    patterns: dict[Name, tuple[Pattern, ...]] = Field(default_factory=dict)


class _Opening(Table):
    model: str
    unfit: dict[Name, Words] = Field(default_factory=dict)
    never: Words = ()
    things: tuple[Words, ...] = ()
    instead: InBoth


class TaskFile(Table):
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
    method: Method = "generate"
    safety: _Safety | None = None
    opening: _Opening | None = None


def parse_task_file(path: Path, source: str) -> TaskFile:
    """`source`, which `path` holds. Raises InvalidTask."""
    try:
        file = TaskFile.model_validate(tomllib.loads(source))
    except (tomllib.TOMLDecodeError, RecursionError) as exc:
        raise InvalidTask(f"{path} is not TOML: {exc}") from exc
    except ValidationError as exc:
        raise InvalidTask("; ".join(_describe(path, source, error) for error in exc.errors())) from exc
    _check_meaning(path, file)
    return file


def _describe(path: Path, source: str, error: Mapping[str, Any]) -> str:
    where = ".".join(str(part) for part in error["loc"])
    message = _unknown(str(error["loc"][-1])) if error["type"] == "extra_forbidden" else error["msg"].lower()
    return f"{path}:{_line_of(source, error['loc'])}: {where}: {message}"


def _unknown(key: str) -> str:
    known = [name for table in Table.__subclasses__() for name in table.model_fields]
    likely = get_close_matches(key, known, n=1)
    return f"unknown key; did you mean {likely[0]}?" if likely else "unknown key"


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


def _check_meaning(path: Path, file: TaskFile) -> None:
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
    if file.kind == "decision" and (file.opening or file.method != "generate"):
        raise InvalidTask(f"{path}: opening and method belong to a task that generates; this one decides")
    _check_formats(path, file)
    if file.safety:
        _check_safety(path, names, file.safety)
    for rule in file.rules:
        _check_rule(path, file, rule)


def _check_safety(path: Path, labels: Sequence[str], safety: _Safety) -> None:
    dangerous = list(safety.replies)
    if unknown := sorted({*dangerous, *safety.patterns} - {*labels}):
        raise InvalidTask(f"{path}: safety names {', '.join(unknown)}, which is no label of this task")
    if silent := sorted(safety.patterns.keys() - safety.replies.keys()):
        raise InvalidTask(f"{path}: safety.patterns.{silent[0]} has no reply")
    if len(labels) != len(dangerous) + 1:
        raise InvalidTask(f"{path}: safety needs a reply for every label but the one of harmless texts")


def _check_formats(path: Path, file: TaskFile) -> None:
    try:
        file.text_format.format(label="", confidence="")
        file.merged_format.format(emoji="", label="", confidence="")
    except (KeyError, IndexError, ValueError, AttributeError) as exc:
        raise InvalidTask(
            f"{path}: text_format and merged_format know {{label}}, {{confidence}}, {{emoji}}: {exc}"
        ) from exc


def _check_rule(path: Path, file: TaskFile, rule: _Rule) -> None:
    limits = (rule.min_chars, rule.max_chars, rule.min_words, rule.max_words)
    if not rule.words and not rule.patterns and all(limit is None for limit in limits):
        raise InvalidTask(f"{path}: rule {rule.name} has no condition and would take every message")
    if rule.reply is not None and file.kind == "decision":
        raise InvalidTask(f"{path}: rule {rule.name}: only a task that generates can have a fixed reply")
