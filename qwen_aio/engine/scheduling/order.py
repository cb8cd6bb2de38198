"""The order of decisions: shortest remaining first; after 30 s of waiting, first come first served.

Knows no torch and no text. Owned by the engine thread.
"""

from __future__ import annotations

from enum import IntEnum

from qwen_aio.engine.scheduling.sequence import Sequence

OVERDUE_AFTER_S = 30.0  # aging: an overdue decision goes before all that arrived after it


class SequenceKind(IntEnum):
    """Decisions are short or long. No sequence waits for the prefix of one of a later kind."""

    SHORT = 0
    LONG = 1
    ANSWER = 2


class Order:
    """Kind and rank of sequences at the moment `now_s`."""

    def __init__(self, *, short_rows: int) -> None:
        """`short_rows`: the most rows of a short decision."""
        self.now_s = 0.0  # by the clock of `arrived_s`
        self._short_rows = short_rows

    def kind(self, sequence: Sequence) -> SequenceKind:
        """By the rows to compute at arrival or at admission, not by the remaining ones."""
        if sequence.is_answer:
            return SequenceKind.ANSWER
        return SequenceKind.SHORT if len(sequence.ids) - sequence.num_cached <= self._short_rows else SequenceKind.LONG

    def is_overdue(self, sequence: Sequence) -> bool:
        return not sequence.is_answer and self.now_s - sequence.arrived_s >= OVERDUE_AFTER_S

    def rank(self, decision: Sequence) -> tuple[int, float]:
        """A sort key, the lowest first; a stable sort keeps equal ones in order of arrival."""
        return (0, decision.arrived_s) if self.is_overdue(decision) else (1, num_remaining(decision))


def num_remaining(sequence: Sequence) -> int:
    """Rows that are neither computed nor cached."""
    return len(sequence.ids) - max(sequence.num_computed, sequence.num_cached)
