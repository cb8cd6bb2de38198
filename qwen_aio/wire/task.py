"""`GET /v1/tasks`: the tasks of a server and the limits of a request."""

from __future__ import annotations

from typing import Self

from qwen_aio.bounds import MAX_TIMEOUT_S
from qwen_aio.core import Capabilities, ContextLimits, Label, Rule, Sampling, Task, TaskKind
from qwen_aio.language import Language
from qwen_aio.safeguards import SafetyPolicy
from qwen_aio.wire.request import MAX_BODY_BYTES, MAX_HISTORY, MAX_TEXTS
from qwen_aio.wire.shape import Answered


class TaskLimits(Answered):
    """Limits of one request of a task; `max_tokens` is null for a decision."""

    timeout_s: float
    """The default."""
    max_tokens: int | None
    """The longest answer."""


class LabelShape(Answered, from_attributes=True):
    """One outcome of a decision."""

    name: str
    """For programs."""
    text: str
    """For the model."""
    emoji: str
    """For people."""


class RuleShape(Answered, from_attributes=True):
    """A rule of `auto`: all limits must hold, and one word or pattern if any is listed."""

    task: str
    """The task that it chooses."""
    name: str
    """Its name in task.toml."""
    priority: int
    """The lowest is tried first."""
    words: tuple[str, ...]
    """Plain substrings, compared without case."""
    patterns: tuple[str, ...]
    """Regular expressions, searched without case."""
    min_chars: int | None
    """Characters of the text."""
    max_chars: int | None
    """Characters of the text."""
    min_words: int | None
    """A CJK character counts as one word."""
    max_words: int | None
    """A CJK character counts as one word."""
    reply: str | None
    """The answer that is given without the model."""


class DefaultSampling(Answered, from_attributes=True):
    """What holds for an answer where the request says nothing else."""

    max_tokens: int
    """Longest answer in tokens."""
    temperature: float
    """0 always takes the most likely token."""
    top_p: float
    """Sample among the most likely tokens that together reach this probability."""
    top_k: int
    """Sample among this many of the most likely tokens; 0: among all."""
    repetition_penalty: float
    """Makes tokens of prompt and answer less likely; 1: off."""
    stop: tuple[str, ...]
    """The answer ends before any of these."""
    seed: int | None
    """Null: another one for every answer."""
    presence_penalty: float
    """Makes tokens that the answer has less likely."""
    frequency_penalty: float
    """Makes tokens less likely by how often the answer has them."""


class SafetyShape(Answered, from_attributes=True):
    """Makes its decision task the one that is asked before any answer."""

    harmless: str
    """The label of everything else."""
    replies: dict[str, dict[Language, str]]
    """Dangerous label, the gravest first -> the answer by language."""
    patterns: dict[str, tuple[str, ...]]
    """Dangerous label -> the word rule."""


class TaskShape(Answered):
    """A task without its prompt, its thresholds and its golden cases: for clients and balancers."""

    name: str
    """For `mode`, `tasks` and, after `qwen-aio/`, `model`."""
    kind: TaskKind
    """Whether it decides or answers."""
    title: dict[str, str]
    """Language code -> name shown on the page."""
    hash: str
    """Of the prompt and of how its scores are read."""
    labels: tuple[LabelShape, ...]
    """What a decision can say."""
    companion: str | None
    """The task of the other kind that `reply` runs as well."""
    sampling: DefaultSampling | None
    """Defaults of an answer; null for a decision."""
    rules: tuple[RuleShape, ...]
    """When `auto` chooses this task."""
    safety: SafetyShape | None = None
    """A balancer plans with its word rule."""
    limits: TaskLimits
    """Of one request of this task."""

    @classmethod
    def from_core(cls, task: Task, *, context: ContextLimits, timeout_s: float) -> Self:
        generates = task.kind == "generation"
        limits = TaskLimits(timeout_s=timeout_s, max_tokens=context.answer_tokens if generates else None)
        return cls(**(vars(task) | {"sampling": task.sampling if generates else None, "limits": limits}))

    def to_core(self) -> Task:
        """The task, as far as the shape has it; its template is empty."""
        fields = {name: value for name, value in vars(self).items() if name != "limits"}
        nouns = {
            "labels": tuple(Label(**vars(label)) for label in self.labels),
            "rules": tuple(Rule(**vars(rule)) for rule in self.rules),
            "sampling": Sampling(**vars(self.sampling)) if self.sampling else Sampling(),
            "safety": SafetyPolicy(**vars(self.safety)) if self.safety else None,
        }
        return Task(**(fields | nouns | {"template": ""}))


class Limits(Answered):
    """Limits of every request."""

    context_tokens: int
    """Prompt and answer together."""
    answer_tokens: int
    """The answer alone."""
    body_bytes: int = MAX_BODY_BYTES
    """Of a request."""
    texts: int = MAX_TEXTS
    """In one request."""
    history_messages: int = MAX_HISTORY
    """In one request."""
    timeout_s: float = MAX_TIMEOUT_S
    """The longest that a request may set."""


class TasksResponse(Answered):
    """All tasks, and the limits they share."""

    model: str
    """The name of the model."""
    worker: str
    """The worker's id, or `balancer`."""
    tasks: list[TaskShape]
    """By name."""
    limits: Limits
    """Of every request."""

    @classmethod
    def from_core(cls, capabilities: Capabilities, *, timeouts_s: dict[TaskKind, float]) -> Self:
        context = capabilities.context
        shapes = [
            TaskShape.from_core(task, context=context, timeout_s=timeouts_s[task.kind])
            for task in capabilities.tasks.values()
        ]
        limits = Limits(context_tokens=context.tokens, answer_tokens=context.answer_tokens)
        return cls(model=capabilities.model, worker=capabilities.worker, tasks=shapes, limits=limits)

    def to_core(self) -> Capabilities:
        context = ContextLimits(self.limits.context_tokens, self.limits.answer_tokens)
        return Capabilities({task.name: task.to_core() for task in self.tasks}, context, self.model, self.worker)
