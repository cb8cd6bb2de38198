"""The probability from which decisions are right often enough, found on one half and checked on the other."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from qwen_aio.evaluation.judged import Judged
from qwen_aio.evaluation.share import Share

SEED = 0
NUM_MISTAKES = 20


@dataclass(frozen=True)
class Threshold:
    """Decisions with at least this probability; None: no probability is enough."""

    target: float
    probability: float | None
    found_on: Share  # right of those decided, on the half it was found on
    checked_on: Share  # ... on the other half
    decided: Share  # of the other half
    mistakes: tuple[Judged, ...]  # wrong all the same, the surest first, of both halves

    @property
    def holds(self) -> bool:
        """Whether the other half reaches the target, too."""
        return self.probability is not None and self.checked_on.value >= self.target


def find_threshold(rows: Sequence[Judged], target: float) -> Threshold:
    """The least probability from which on a share `target` of one half is right: as much as possible is decided."""
    shuffled = random.Random(SEED).sample(list(rows), len(rows))
    half, other = shuffled[: len(rows) // 2], shuffled[len(rows) // 2 :]
    probability = _least(half, target)
    found, checked = _decided(half, probability), _decided(other, probability)
    wrong = [row for row in (*found, *checked) if not row.is_best_right]
    return Threshold(
        target=target,
        probability=probability,
        found_on=_right(found),
        checked_on=_right(checked),
        decided=Share(len(checked), len(other)),
        mistakes=tuple(sorted(wrong, key=lambda row: -row.probability)[:NUM_MISTAKES]),
    )


def coverage(rows: Sequence[Judged], points: int = 100) -> list[tuple[float, float, float]]:
    """(probability asked for, share decided, accuracy of those), as the probability falls; at most `points` of them."""
    falling = sorted(rows, key=lambda row: -row.probability)
    found, right = [], 0
    for count, row in enumerate(falling, 1):
        right += row.is_best_right
        if count * points // len(rows) > (count - 1) * points // len(rows) or count == len(rows):
            found.append((row.probability, count / len(rows), right / count))
    return found


def _least(rows: Sequence[Judged], target: float) -> float | None:
    least, right = None, 0
    falling = sorted(rows, key=lambda row: -row.probability)
    for count, row in enumerate(falling, 1):
        right += row.is_best_right
        is_last_of_equals = count == len(falling) or falling[count].probability < row.probability
        if is_last_of_equals and right / count >= target:
            least = row.probability
    return least


def _decided(rows: Sequence[Judged], probability: float | None) -> list[Judged]:
    return [row for row in rows if probability is not None and row.probability >= probability]


def _right(rows: Sequence[Judged]) -> Share:
    return Share(sum(row.is_best_right for row in rows), len(rows))
