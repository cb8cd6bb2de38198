"""`GET /v1/tasks`: what a caller may ask for, and within which limits."""

from __future__ import annotations

from typing import Self

from qwen_aio.core import Capabilities, ContextLimits, Label, Rule, Sampling, Task, TaskKind
from qwen_aio.wire.request import MAX_BODY_BYTES, MAX_HISTORY, MAX_TEXTS, MAX_TIMEOUT_S
from qwen_aio.wire.shape import Answered


class TaskLimits(Answered):
    """What one request of a task may take; `max_tokens` is null where nothing is generated."""

    timeout_s: float  # unless the request says otherwise
    max_tokens: int | None


class TaskShape(Answered):
    """A task, as far as callers and balancers need it: not its prompt, its thresholds and its golden cases."""

    name: str
    kind: TaskKind
    title: dict[str, str]
    hash: str
    labels: list[Label]
    companion: str | None
    sampling: Sampling | None
    rules: list[Rule]
    limits: TaskLimits

    @classmethod
    def from_core(cls, task: Task, *, context: ContextLimits, timeout_s: float) -> Self:
        generates = task.kind == "generation"
        return cls(
            name=task.name,
            kind=task.kind,
            title=task.title,
            hash=task.hash,
            labels=list(task.labels),
            companion=task.companion,
            sampling=task.sampling if generates else None,
            rules=list(task.rules),
            limits=TaskLimits(timeout_s=timeout_s, max_tokens=context.answer_tokens if generates else None),
        )

    def to_core(self) -> Task:
        """The task without what is not told; its template is empty."""
        return Task(
            name=self.name,
            kind=self.kind,
            title=self.title,
            template="",
            hash=self.hash,
            labels=tuple(self.labels),
            companion=self.companion,
            sampling=self.sampling or Sampling(),
            rules=tuple(self.rules),
        )


class Limits(Answered):
    """What holds for every request."""

    context_tokens: int  # prompt and answer together
    answer_tokens: int  # the answer alone
    body_bytes: int = MAX_BODY_BYTES
    texts: int = MAX_TEXTS
    history_messages: int = MAX_HISTORY
    timeout_s: float = MAX_TIMEOUT_S  # the longest that may be asked for


class TasksResponse(Answered):
    """All tasks, and the limits they share."""

    model: str
    worker: str
    tasks: list[TaskShape]
    limits: Limits

    @classmethod
    def from_core(cls, offer: Capabilities, *, timeouts_s: dict[TaskKind, float]) -> Self:
        context = offer.context
        shapes = [
            TaskShape.from_core(task, context=context, timeout_s=timeouts_s[task.kind]) for task in offer.tasks.values()
        ]
        limits = Limits(context_tokens=context.tokens, answer_tokens=context.answer_tokens)
        return cls(model=offer.model, worker=offer.worker, tasks=shapes, limits=limits)

    def to_core(self) -> Capabilities:
        context = ContextLimits(self.limits.context_tokens, self.limits.answer_tokens)
        return Capabilities({task.name: task.to_core() for task in self.tasks}, context, self.model, self.worker)
