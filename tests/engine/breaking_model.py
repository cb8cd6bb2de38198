"""A repeating model some of whose logits cannot be used: to pick or to score among them raises."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tests.engine.repeating_model import RepeatingModel


class BreakingModel(RepeatingModel):
    """Breaks by what the row attends to, so a request breaks where it would alone."""

    def __init__(self, breaks: Callable[[int], bool]) -> None:
        """`breaks`: True for the numbers of ExactModel whose logits are unusable."""
        super().__init__()
        self._breaks = breaks

    def logits(self, hidden: NDArray[np.float32]) -> list[NDArray[np.float32]]:  # type: ignore[override]  # rows of different lengths
        """(n, 2) -> n of (vocab,), or of nothing"""
        rows = super().logits(hidden)
        return [
            np.empty(0, np.float32) if self._breaks(int(number)) else row
            for (number, _), row in zip(hidden, rows, strict=True)
        ]
