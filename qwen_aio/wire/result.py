"""The result of a run as JSON: flat for a decision, with the answer in `reply`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Self, TypeVar

from qwen_aio.errors import QwenAioError
from qwen_aio.result import (
    Answer,
    Confidence,
    Decision,
    Explanation,
    FinishReason,
    Result,
    Safety,
    Timings,
    Truncation,
    Usage,
)
from qwen_aio.wire.error import ErrorResponse
from qwen_aio.wire.shape import Answered

Noun = TypeVar("Noun", Decision, Answer, Result)


class _Costs(Answered):
    """The costs of a decision or an answer, and the truncation of its prompt."""

    usage: Usage
    """Tokens."""
    timings: Timings
    """Durations."""
    truncated: bool = False
    """Whether the text was cut to fit the context."""
    dropped_turns: int = 0
    """Earlier turns that did not fit the context."""

    @staticmethod
    def _costs(outcome: Decision | Answer) -> dict[str, Any]:
        timings = Timings(**{name: round(value, 1) for name, value in vars(outcome.timings).items()})
        return {"usage": outcome.usage, "timings": timings, **vars(outcome.truncation)}

    def _noun(self, kind: type[Noun], **others: Any) -> Noun:
        """A `kind`, of the fields that this shape has by the same name and of `others`."""
        names = {each.name for each in fields(kind)}
        return kind(**{name: value for name, value in vars(self).items() if name in names}, **others)


class DecisionShape(_Costs):
    """A decision, as the `decision` event carries it."""

    decision_task: str
    """The task that decided."""
    label: str
    """The decision; the neutral label if it abstained."""
    emotion: str
    """The label's text, Chinese for every input."""
    emoji: str
    """The label's emoji."""
    confidence: Confidence
    """High, medium or low, by the thresholds of the task."""
    best_label: str
    """The most probable label."""
    probability: float
    """scores[best_label]."""
    scores: dict[str, float]
    """Label -> probability; they sum to 1."""
    abstained: bool
    """No label was clear."""
    calibrated: bool
    """Whether a calibration for this model was used."""
    label_mass: float
    """Probability that the labels held together among all continuations."""
    text: str
    """The fixed format."""
    reason: str | None = None
    """A sentence about what moved the decision; null without `explain`."""
    explanation: Explanation | None = None
    """What moved the decision; null without `explain`."""
    merged: str
    """The head of the merged line."""
    decision_worker: str = ""
    """The worker that decided."""

    @classmethod
    def from_core(cls, decision: Decision) -> Self:
        named = {"decision_task": decision.task, "decision_worker": decision.worker, "reason": decision.reason}
        return cls(**(vars(decision) | cls._costs(decision) | named))

    def to_core(self) -> Decision:
        truncation = Truncation(self.dropped_turns, self.truncated)
        return self._noun(Decision, task=self.decision_task, worker=self.decision_worker, truncation=truncation)


class ReplyShape(_Costs):
    """An answer; it has its own worker and costs."""

    task: str
    """The task that answered."""
    text: str
    """The answer."""
    finish_reason: FinishReason
    """`fixed`: a text that a rule gives; `extracted`: sentences of the text."""
    safety: Safety | None = None
    """What was decided before the answer; null where no task checks."""
    worker: str
    """The worker that answered."""

    @classmethod
    def from_core(cls, answer: Answer) -> Self:
        return cls(**(vars(answer) | cls._costs(answer)))

    def to_core(self) -> Answer:
        return self._noun(Answer, truncation=Truncation(self.dropped_turns, self.truncated))


class RunResponse(_Costs):
    """The result of one text. Without a decision its fields are null, and the costs the reply's."""

    request_id: str
    """That of the header X-Request-ID."""
    mode: str
    """The task that was run."""
    task_hash: str
    """Of its prompt and of how its scores are read."""
    model: str
    """The name of the model."""
    worker: str
    """The worker of the decision, or of the answer without one."""
    route: str
    """Why this task was run."""
    total_ms: float
    """From the first to the last of all work."""
    merged: str
    """Decision and answer in one line."""
    decision_task: str | None = None
    """The task that decided; null, as the next ones, without a decision."""
    decision_worker: str | None = None
    """The worker that decided."""
    label: str | None = None
    """The decision; the neutral label if it abstained."""
    emotion: str | None = None
    """The label's text, Chinese for every input."""
    emoji: str | None = None
    """The label's emoji."""
    confidence: Confidence | None = None
    """High, medium or low, by the thresholds of the task."""
    best_label: str | None = None
    """The most probable label."""
    probability: float | None = None
    """scores[best_label]."""
    scores: dict[str, float] | None = None
    """Label -> probability; they sum to 1."""
    abstained: bool | None = None
    """No label was clear."""
    calibrated: bool | None = None
    """Whether a calibration for this model was used."""
    label_mass: float | None = None
    """Probability that the labels held together among all continuations."""
    text: str | None = None
    """The fixed format."""
    reason: str | None = None
    """A sentence about what moved the decision; null without `explain`."""
    explanation: Explanation | None = None
    """What moved the decision; null without `explain`."""
    reply: ReplyShape | None = None
    """The answer; null if none was asked for."""

    @classmethod
    def from_core(cls, result: Result) -> Self:
        main = result.decision or result.answer
        assert main is not None
        decision = vars(DecisionShape.from_core(result.decision)) if result.decision else cls._costs(main)
        named = {
            "total_ms": round(result.total_ms, 1),
            "merged": result.merged_line,
            "reply": ReplyShape.from_core(result.answer) if result.answer else None,
        }
        return cls(**(decision | vars(result) | named))

    def to_core(self) -> Result:
        answer = self.reply.to_core() if self.reply else None
        decision = None
        if self.label is not None:
            head = self.merged.removesuffix(answer.merged_tail) if answer else self.merged
            decision = DecisionShape(**(vars(self) | {"merged": head})).to_core()
        return self._noun(Result, decision=decision, answer=answer)


class RunListResponse(Answered):
    """The answer to `texts`, in their order."""

    results: list[RunResponse]
    """In the order of `texts`."""


class RunTasksResponse(Answered):
    """The answer to `tasks`, each with its own result or error, and the merged lines of the results in one."""

    request_id: str
    """That of the header X-Request-ID."""
    merged: str
    """The merged lines of the results in one."""
    results: dict[str, RunResponse | ErrorResponse]
    """Task -> its result or its error."""

    @classmethod
    def from_core(cls, request_id: str, outcomes: Mapping[str, Result | QwenAioError]) -> Self:
        """`outcomes` by task, in the order that was asked for."""
        lines = [outcome.merged_line for outcome in outcomes.values() if isinstance(outcome, Result)]
        results = {
            task: RunResponse.from_core(outcome)
            if isinstance(outcome, Result)
            else ErrorResponse.from_core(outcome, request_id)
            for task, outcome in outcomes.items()
        }
        return cls(request_id=request_id, merged=" ".join(lines), results=results)
