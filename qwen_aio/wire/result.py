"""The result of a run as JSON: flat for a decision, with the answer in `reply`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Self, TypeVar

from qwen_aio.errors import QwenAioError
from qwen_aio.result import Answer, Confidence, Decision, FinishReason, Result, Safety, Timings, Truncation, Usage
from qwen_aio.wire.error import ErrorResponse
from qwen_aio.wire.shape import Answered

Noun = TypeVar("Noun", Decision, Answer, Result)


class _Costs(Answered):
    """The costs of a decision or an answer, and the truncation of its prompt."""

    usage: Usage
    timings: Timings
    truncated: bool = False
    dropped_turns: int = 0

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
    label: str
    emotion: str
    emoji: str
    confidence: Confidence
    best_label: str
    probability: float
    scores: dict[str, float]
    abstained: bool
    calibrated: bool
    label_mass: float
    text: str
    reason: str | None = None
    merged: str
    decision_worker: str = ""

    @classmethod
    def from_core(cls, decision: Decision) -> Self:
        named = {"decision_task": decision.task, "decision_worker": decision.worker}
        return cls(**(vars(decision) | cls._costs(decision) | named))

    def to_core(self) -> Decision:
        truncation = Truncation(self.dropped_turns, self.truncated)
        return self._noun(Decision, task=self.decision_task, worker=self.decision_worker, truncation=truncation)


class ReplyShape(_Costs):
    """An answer; it has its own worker and costs."""

    task: str
    text: str
    finish_reason: FinishReason
    safety: Safety | None = None
    worker: str

    @classmethod
    def from_core(cls, answer: Answer) -> Self:
        return cls(**(vars(answer) | cls._costs(answer)))

    def to_core(self) -> Answer:
        return self._noun(Answer, truncation=Truncation(self.dropped_turns, self.truncated))


class RunResponse(_Costs):
    """The result of one text. Without a decision its fields are null, and the costs the reply's."""

    request_id: str
    mode: str
    task_hash: str
    model: str
    worker: str
    route: str
    total_ms: float
    merged: str
    decision_task: str | None = None
    decision_worker: str | None = None
    label: str | None = None
    emotion: str | None = None
    emoji: str | None = None
    confidence: Confidence | None = None
    best_label: str | None = None
    probability: float | None = None
    scores: dict[str, float] | None = None
    abstained: bool | None = None
    calibrated: bool | None = None
    label_mass: float | None = None
    text: str | None = None
    reason: str | None = None
    reply: ReplyShape | None = None

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


class RunTasksResponse(Answered):
    """The answer to `tasks`, each with its own result or error, and the merged lines of the results in one."""

    request_id: str
    merged: str
    results: dict[str, RunResponse | ErrorResponse]

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
