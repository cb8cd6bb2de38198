"""Multinomial naive Bayes over words, Chinese characters and pairs of both: what a prompt must beat."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

_UNITS = re.compile(r"[\u3400-\u9fff]|[^\W\u3400-\u9fff]+")
SMOOTHING = 1.0


class NaiveBayes:
    """Learned from texts and their labels; equal to scikit-learn's MultinomialNB on the same counts."""

    def __init__(self, texts: Sequence[str], labels: Sequence[str]) -> None:
        self._prior = Counter(labels)
        self._counts: dict[str, Counter[str]] = {label: Counter() for label in self._prior}
        for text, label in zip(texts, labels, strict=True):
            self._counts[label].update(units(text))
        self._known = {unit for counts in self._counts.values() for unit in counts}
        self._totals = {label: counts.total() for label, counts in self._counts.items()}

    def label(self, text: str) -> str:
        """The most probable one; units that were never seen say nothing."""
        found = [unit for unit in units(text) if unit in self._known]
        return max(sorted(self._prior), key=lambda label: self._log_probability(label, found))

    def _log_probability(self, label: str, found: Sequence[str]) -> float:
        counts, total = self._counts[label], self._totals[label] + SMOOTHING * len(self._known)
        likely = sum(math.log((counts[unit] + SMOOTHING) / total) for unit in found)
        return math.log(self._prior[label]) + likely


def units(text: str) -> list[str]:
    """Words and Chinese characters in small letters, and each pair of neighbours."""
    single = _UNITS.findall(text.casefold())
    return [*single, *(f"{first} {second}" for first, second in pairwise(single))]
