"""What was measured: values of every round, medians and spread. Knows no sides but their names."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Round = Mapping[str, float]  # figure -> value


@dataclass(frozen=True)
class Table:
    """One measure: what each side showed in each round."""

    title: str
    note: str
    rounds: Mapping[str, Sequence[Round]]  # by side

    @property
    def columns(self) -> list[str]:
        """Every figure that any side has, in the order in which they came."""
        return list(dict.fromkeys(name for rounds in self.rounds.values() for one in rounds for name in one))

    def values(self, side: str, column: str) -> list[float]:
        return sorted(one[column] for one in self.rounds[side] if column in one)

    def markdown(self, ours: str | None) -> str:
        """Median (smallest to largest); behind it how `ours` compares."""
        lines = [f"### {self.title}", "", self.note, ""]
        lines += [f"| | {' | '.join(self.columns)} |", "|---" * (len(self.columns) + 1) + "|"]
        for side in self.rounds:
            cells = [self._cell(side, column, ours) for column in self.columns]
            lines.append(f"| {side} | {' | '.join(cells)} |")
        return "\n".join([*lines, ""])

    def summary(self) -> dict[str, dict[str, dict[str, float]]]:
        """Side -> figure -> median, smallest, largest, number of rounds."""
        return {
            side: {
                column: {
                    "median": round(statistics.median(values), 3),
                    "min": round(values[0], 3),
                    "max": round(values[-1], 3),
                    "n": len(values),
                }
                for column in self.columns
                if (values := self.values(side, column))
            }
            for side in self.rounds
        }

    def _cell(self, side: str, column: str, ours: str | None) -> str:
        values = self.values(side, column)
        if not values:
            return "-"
        median = statistics.median(values)
        told = f"{median:.4g} ({values[0]:.4g} to {values[-1]:.4g})"
        if ours is None or side == ours or not (own := self.values(ours, column)):
            return told
        return f"{told} {statistics.median(own) / median:.2f}x"
