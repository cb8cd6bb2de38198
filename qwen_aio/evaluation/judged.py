"""Rows with a known label beside what was decided about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qwen_aio.core import Task
from qwen_aio.errors import InvalidRequest, InvalidSettings
from qwen_aio.result import Confidence, Decision


@dataclass(frozen=True)
class Judged:
    """One row: its text, its true label, and the decision. Labels are names."""

    number: int  # in the file
    text: str
    truth: str
    label: str
    best_label: str
    probability: float  # of the best label
    scores: Mapping[str, float]  # label -> probability, in the task's order
    confidence: Confidence
    abstained: bool
    is_calibrated: bool

    @classmethod
    def of(cls, number: int, text: str, truth: str, decision: Decision) -> Judged:
        return cls(
            number=number,
            text=text,
            truth=truth,
            label=decision.label,
            best_label=decision.best_label,
            probability=decision.probability,
            scores=decision.scores,
            confidence=decision.confidence,
            abstained=decision.abstained,
            is_calibrated=decision.calibrated,
        )

    @property
    def is_right(self) -> bool:
        return self.label == self.truth

    @property
    def is_best_right(self) -> bool:
        """Whether the most probable label is right, also where the decision abstained."""
        return self.best_label == self.truth


class Truths:
    """What stands in the label column -> the name of a label."""

    def __init__(self, task: Task, others: Sequence[str]) -> None:
        """`others`: "1=positive" for what is neither a label's name nor its text. Raises InvalidSettings."""
        names = [label.name for label in task.labels]
        self._known = {name.casefold(): name for name in names}
        self._known |= {label.text.casefold(): label.name for label in task.labels}
        for other in others:
            written, _, name = other.rpartition("=")
            if not written or name not in names:
                raise InvalidSettings(f"{other!r}: write VALUE=LABEL; the labels are {', '.join(names)}")
            self._known[written.strip().casefold()] = name

    def name(self, written: str) -> str:
        """Raises InvalidRequest for what is no label."""
        found = self._known.get(written.strip().casefold())
        if found is None:
            raise InvalidRequest(f"{written[:40]!r} is no label")
        return found
