"""Figures of judged rows. Pure; arrays are (rows,) unless said otherwise.

Definitions are those of scikit-learn, which the tests compare with. Intervals are 95 %: percentile bootstrap over rows
(Efron 1979), or Wilson's where a figure is a share.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qwen_aio.evaluation.judged import Judged
from qwen_aio.evaluation.share import Share

RESAMPLES = 1000
SEED = 0
NUM_BINS = 15  # of the calibration error
FEW_HALF_WIDTH = 0.03  # an interval that reaches farther tells little
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Figure:
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True)
class OfLabel:
    """How one label is met; 0 where nothing was to be met."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int  # rows whose true label it is


@dataclass(frozen=True)
class Bin:
    """Rows whose best label has a probability in one of NUM_BINS equal ranges."""

    count: int
    probability: float  # mean
    accuracy: float


@dataclass(frozen=True)
class Band:
    """Rows of one confidence."""

    confidence: str
    right: Share
    share: float  # of all rows


@dataclass(frozen=True)
class Metrics:
    """Everything that is said of one set of rows."""

    num_rows: int
    accuracy: Figure
    macro_f1: Figure
    of_labels: tuple[OfLabel, ...]
    labels: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]  # [true][decided]
    calibration_error: Figure
    bins: tuple[Bin, ...]
    bands: tuple[Band, ...]
    abstained: Share

    @property
    def has_few_rows(self) -> bool:
        """Whether the accuracy may well be another one."""
        return (self.accuracy.high - self.accuracy.low) / 2 > FEW_HALF_WIDTH

    @property
    def rows_needed(self) -> int:
        """Rows that would bring the interval to FEW_HALF_WIDTH, were the accuracy the same."""
        p = min(max(self.accuracy.value, 0.05), 0.95)
        return math.ceil(p * (1 - p) * (1.96 / FEW_HALF_WIDTH) ** 2)


def metrics_of(rows: Sequence[Judged], labels: Sequence[str]) -> Metrics:
    """The figures of `rows`, at least one."""
    index = {label: number for number, label in enumerate(labels)}
    truth = np.array([index[row.truth] for row in rows])
    decided = np.array([index[row.label] for row in rows])
    probability = np.array([row.probability for row in rows])
    is_right = np.array([row.is_best_right for row in rows])
    confusion = confusion_of(truth, decided, len(labels))
    accuracies, scores, errors = [], [], []
    rng = np.random.default_rng(SEED)
    for _ in range(RESAMPLES):
        pick = rng.integers(len(rows), size=len(rows))
        counts = confusion_of(truth[pick], decided[pick], len(labels))
        accuracies.append(accuracy(counts))
        scores.append(macro_f1(counts))
        errors.append(calibration_error(probability[pick], is_right[pick]))
    return Metrics(
        num_rows=len(rows),
        accuracy=_figure(accuracy(confusion), accuracies),
        macro_f1=_figure(macro_f1(confusion), scores),
        of_labels=tuple(map(OfLabel, labels, *_per_label(confusion), confusion.sum(1).tolist())),
        labels=tuple(labels),
        confusion=tuple(map(tuple, confusion.tolist())),
        calibration_error=_figure(calibration_error(probability, is_right), errors),
        bins=tuple(bins_of(probability, is_right)),
        bands=tuple(_bands(rows)),
        abstained=Share(sum(row.abstained for row in rows), len(rows)),
    )


def confusion_of(truth: Counts, decided: Counts, num_labels: int) -> Counts:
    """(true, decided) -> rows."""
    return np.bincount(truth * num_labels + decided, minlength=num_labels**2).reshape(num_labels, num_labels)


def accuracy(confusion: Counts) -> float:
    return float(confusion.trace() / confusion.sum())


def macro_f1(confusion: Counts) -> float:
    """The mean over the labels that are true of a row or decided for one, as scikit-learn has it."""
    _, _, f1 = _per_label(confusion)
    is_met = (confusion.sum(0) + confusion.sum(1)) > 0
    return float(np.array(f1)[is_met].mean())


def _per_label(confusion: Counts) -> tuple[list[float], list[float], list[float]]:
    """Precision, recall and F1 of each label."""
    hits, decided, true = confusion.diagonal(), confusion.sum(0), confusion.sum(1)
    precision = hits / np.maximum(decided, 1)
    recall = hits / np.maximum(true, 1)
    return precision.tolist(), recall.tolist(), (2 * hits / np.maximum(decided + true, 1)).tolist()


def calibration_error(probability: NDArray[np.float64], is_right: NDArray[np.bool_]) -> float:
    """Expected calibration error: |accuracy - mean probability| of the bins, weighted by rows (Naeini et al. 2015)."""
    bins = bins_of(probability, is_right)
    return sum(each.count * abs(each.accuracy - each.probability) for each in bins) / len(probability)


def bins_of(probability: NDArray[np.float64], is_right: NDArray[np.bool_]) -> list[Bin]:
    """Bins of equal width that hold any row, the lowest first."""
    numbers = np.minimum((probability * NUM_BINS).astype(int), NUM_BINS - 1)
    counts = np.bincount(numbers, minlength=NUM_BINS)
    sums = np.bincount(numbers, weights=probability, minlength=NUM_BINS)
    rights = np.bincount(numbers, weights=is_right, minlength=NUM_BINS)
    return [
        Bin(int(count), float(total / count), float(right / count))
        for count, total, right in zip(counts, sums, rights, strict=True)
        if count
    ]


def _bands(rows: Sequence[Judged]) -> list[Band]:
    found = []
    for confidence in ("高", "中", "低"):
        of_band = [row for row in rows if row.confidence == confidence]
        right = Share(sum(row.is_right for row in of_band), len(of_band))
        found.append(Band(confidence, right, len(of_band) / len(rows)))
    return found


def _figure(value: float, resampled: Sequence[float]) -> Figure:
    low, high = np.percentile(resampled, [2.5, 97.5])
    return Figure(value, float(low), float(high))


@dataclass(frozen=True)
class Difference:
    """Two ways to decide about the same rows, compared by McNemar's exact test."""

    num_rows: int
    only_first: int  # rows that the first alone gets right
    only_second: int
    p_value: float  # of a difference as large as this if both were equally good


def compare_judged(first: Sequence[Judged], second: Sequence[Judged]) -> Difference:
    """Over the rows that both judged."""
    others = {row.number: row for row in second}
    pairs = [(row.is_right, others[row.number].is_right) for row in first if row.number in others]
    only_first = sum(one and not other for one, other in pairs)
    only_second = sum(other and not one for one, other in pairs)
    return Difference(len(pairs), only_first, only_second, mcnemar(only_first, only_second))


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided exact p: a fair coin decides about the rows that only one got right (McNemar 1947)."""
    total, least = only_first + only_second, min(only_first, only_second)
    tail = sum(math.comb(total, count) for count in range(least + 1))
    return min(1.0, 2 * tail / (1 << total))
