"""How many of how many, with an interval."""

from __future__ import annotations

import math
from dataclasses import dataclass

Z95 = 1.96


@dataclass(frozen=True)
class Share:
    """How many of how many."""

    count: int
    total: int

    @property
    def value(self) -> float:
        return self.count / self.total if self.total else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's, 95 %; all of 0..1 where nothing was counted."""
        if not self.total:
            return 0.0, 1.0
        n, p = self.total, self.value
        middle, spread = p + Z95**2 / (2 * n), Z95 * math.sqrt(p * (1 - p) / n + Z95**2 / (4 * n * n))
        return max(0.0, (middle - spread) / (1 + Z95**2 / n)), (middle + spread) / (1 + Z95**2 / n)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:.3f} ({low:.3f} to {high:.3f}; {self.count} of {self.total})"
