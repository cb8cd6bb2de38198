"""The result of a run as JSON: flat for a decision, with the answer in `reply`."""

from __future__ import annotations

from typing import Any, Self

from qwen_aio.result import Answer, Confidence, Decision, FinishReason, Result, Timings, Truncation, Usage
from qwen_aio.wire.shape import Answered


class _Costs(Answered):
    """The costs of a decision or an answer, and the truncation of its prompt."""

    usage: Usage
    timings: Timings
    truncated: bool = False
    dropped_turns: int = 0

    @staticmethod
    def _costs(outcome: Decision | Answer) -> dict[str, Any]:
        return {
            "usage": outcome.usage,
            "timings": Timings(**{name: round(value, 1) for name, value in vars(outcome.timings).items()}),
            "truncated": outcome.truncation.truncated,
            "dropped_turns": outcome.truncation.dropped_turns,
        }

    def _truncation(self) -> Truncation:
        return Truncation(self.dropped_turns, self.truncated)


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
        fields = {name: value for name, value in vars(decision).items() if name in cls.model_fields}
        named = {"decision_task": decision.task, "decision_worker": decision.worker}
        return cls(**(fields | cls._costs(decision) | named))

    def to_core(self) -> Decision:
        fields = {name: value for name, value in vars(self).items() if name in _DECISION_FIELDS}
        return Decision(**fields, task=self.decision_task, worker=self.decision_worker, truncation=self._truncation())


_DECISION_FIELDS = frozenset(Decision.__dataclass_fields__) - {"worker", "model"}


class ReplyShape(_Costs):
    """An answer; it has its own worker and costs."""

    task: str
    text: str
    finish_reason: FinishReason
    worker: str

    @classmethod
    def from_core(cls, answer: Answer) -> ReplyShape:
        return cls(
            task=answer.task,
            text=answer.text,
            finish_reason=answer.finish_reason,
            worker=answer.worker,
            **cls._costs(answer),
        )

    def to_core(self) -> Answer:
        return Answer(
            self.task,
            self.text,
            self.finish_reason,
            self.usage,
            self.timings,
            truncation=self._truncation(),
            worker=self.worker,
        )


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
        fields = decision | {
            "request_id": result.request_id,
            "mode": result.mode,
            "task_hash": result.task_hash,
            "model": result.model,
            "worker": result.worker,
            "route": result.route,
            "total_ms": round(result.total_ms, 1),
            "merged": result.merged_line,
            "reply": ReplyShape.from_core(result.answer) if result.answer else None,
        }
        return cls(**fields)

    def to_core(self) -> Result:
        answer = self.reply.to_core() if self.reply else None
        decision = None
        if self.label is not None:
            head = self.merged.removesuffix(answer.merged_tail) if answer else self.merged
            decision = DecisionShape(**(vars(self) | {"merged": head})).to_core()
        return Result(
            request_id=self.request_id,
            mode=self.mode,
            route=self.route,
            task_hash=self.task_hash,
            model=self.model,
            worker=self.worker,
            decision=decision,
            answer=answer,
            total_ms=self.total_ms,
        )


class RunListResponse(Answered):
    """The answer to `texts`, in their order."""

    results: list[RunResponse]
