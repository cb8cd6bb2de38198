"""`GET /v1/tasks`: the tasks of a server and the limits of a request."""

from __future__ import annotations

from typing import Self

from qwen_aio.core import Capabilities, ContextLimits, Label, Rule, Sampling, Task, TaskKind
from qwen_aio.safeguards import SafetyPolicy
from qwen_aio.wire.request import MAX_BODY_BYTES, MAX_HISTORY, MAX_TEXTS, MAX_TIMEOUT_S
from qwen_aio.wire.shape import Answered


class TaskLimits(Answered):
    """Limits of one request of a task; `max_tokens` is null for a decision."""

    timeout_s: float  # the default
    max_tokens: int | None


class TaskShape(Answered):
    """A task without its prompt, its thresholds and its golden cases: for clients and balancers."""

    name: str
    kind: TaskKind
    title: dict[str, str]
    hash: str
    labels: tuple[Label, ...]
    companion: str | None
    sampling: Sampling | None
    rules: tuple[Rule, ...]
    safety: SafetyPolicy | None = None  # a balancer plans with its word rule
    limits: TaskLimits

    @classmethod
    def from_core(cls, task: Task, *, context: ContextLimits, timeout_s: float) -> Self:
        generates = task.kind == "generation"
        limits = TaskLimits(timeout_s=timeout_s, max_tokens=context.answer_tokens if generates else None)
        return cls(**(vars(task) | {"sampling": task.sampling if generates else None, "limits": limits}))

    def to_core(self) -> Task:
        """The task, as far as the shape has it; its template is empty."""
        fields = {name: value for name, value in vars(self).items() if name != "limits"}
        return Task(**(fields | {"sampling": self.sampling or Sampling(), "template": ""}))


class Limits(Answered):
    """Limits of every request."""

    context_tokens: int  # prompt and answer together
    answer_tokens: int  # the answer alone
    body_bytes: int = MAX_BODY_BYTES
    texts: int = MAX_TEXTS
    history_messages: int = MAX_HISTORY
    timeout_s: float = MAX_TIMEOUT_S  # the longest that a request may set


class TasksResponse(Answered):
    """All tasks, and the limits they share."""

    model: str
    worker: str
    tasks: list[TaskShape]
    limits: Limits

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
