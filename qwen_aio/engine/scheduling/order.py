"""Which decision goes before which: the one with the fewest rows left, but after 30 s the one that came first.

Knows no torch and no text. Owned by the engine thread.
"""

from __future__ import annotations

from enum import IntEnum

from qwen_aio.engine.scheduling.sequence import Sequence

# A decision that came so long ago is overdue: it goes before all that came after it.
OVERDUE_AFTER_S = 30.0


class SequenceKind(IntEnum):
    """Decisions are short or long. A sequence waits for the prefix of none of a later kind."""

    SHORT = 0
    LONG = 1
    ANSWER = 2


class Order:
    """What a sequence counts as at the moment `now_s`."""

    def __init__(self, *, short_rows: int) -> None:
        """`short_rows`: the most that a short decision has."""
        self.now_s = 0.0  # of the clock that arrivals are noted by
        self._short_rows = short_rows

    def kind(self, sequence: Sequence) -> SequenceKind:
        """By the rows to compute when it came or, once it is admitted, then; not by those that are left."""
        if sequence.is_answer:
            return SequenceKind.ANSWER
        return SequenceKind.SHORT if len(sequence.ids) - sequence.num_cached <= self._short_rows else SequenceKind.LONG

    def is_overdue(self, sequence: Sequence) -> bool:
        return not sequence.is_answer and self.now_s - sequence.arrived_s >= OVERDUE_AFTER_S

    def rank(self, decision: Sequence) -> tuple[int, float]:
        """The lowest goes first; of equal ones the one that comes first in the list that is sorted."""
        return (0, decision.arrived_s) if self.is_overdue(decision) else (1, num_left(decision))


def num_left(sequence: Sequence) -> int:
    """Rows that are neither computed nor remembered."""
    return len(sequence.ids) - max(sequence.num_computed, sequence.num_cached)
