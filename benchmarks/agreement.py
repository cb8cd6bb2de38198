"""How often int8 gives the same label as fp32, on labelled rows, through the product's own /v1/run.

    python -m benchmarks.agreement --data DIR [--model bundled] [--rows 5000]

Two workers with the same model, one in each precision, are asked about the same dev rows (see benchmarks/accuracy.py)
in turns. Rows are drawn from all sets with a fixed seed. Last line of stdout: one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import random
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

import aiohttp

from benchmarks.servers import TEXTS_PER_CALL, last_line, started
from training.corpus import Labelled, sentiment_rows

SEED = 1


@dataclass
class Pairs:
    """What both said about every row so far."""

    equal: list[bool] = field(default_factory=list)
    changes: list[float] = field(default_factory=list)  # largest change of a label's probability
    right: dict[str, list[bool]] = field(default_factory=lambda: {"fp32": [], "int8": []})

    def add(self, row: Labelled, answers: dict[str, dict[str, Any]]) -> None:
        """One row's answers, by precision."""
        exact, rounded = answers["fp32"], answers["int8"]
        self.equal.append(exact["label"] == rounded["label"])
        self.changes.append(max(abs(exact["scores"][name] - rounded["scores"][name]) for name in exact["scores"]))
        for precision, answer in answers.items():
            self.right[precision].append(answer["label"] == row.label)

    def summary(self) -> dict[str, object]:
        """Shares of all rows; the half width is that of the 95 % interval (normal approximation)."""
        share, count = mean(self.equal), len(self.equal)
        return {
            "rows": count,
            "equal_labels": round(share, 4),
            "half_width": round(1.96 * math.sqrt(share * (1 - share) / count), 4),
            "mean_change_of_probability": round(mean(self.changes), 5),
            "largest_change_of_probability": round(max(self.changes), 4),
            **{f"accuracy_{precision}": round(mean(right), 4) for precision, right in self.right.items()},
        }


async def ask(session: aiohttp.ClientSession, url: str, rows: list[Labelled]) -> list[dict[str, Any]]:
    """What the worker at `url` makes of `rows`."""
    body = {"texts": [row.text for row in rows], "mode": "sentiment"}
    async with session.post(f"{url}/v1/run", json=body) as response:
        response.raise_for_status()
        results: list[dict[str, Any]] = (await response.json())["results"]
        return results


async def check_precision(session: aiohttp.ClientSession, url: str, precision: str) -> None:
    """A machine without int8 computes in fp32 instead, which would agree with itself."""
    async with session.get(f"{url}/health") as response:
        found = (await response.json())["precision"]
    assert found == precision, f"the {precision} worker computes in {found}"


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--rows", type=int, default=5000)
    arguments = parser.parse_args()
    rows = [row for row in sentiment_rows(arguments.data, "dev") if row.text.strip()]
    random.Random(SEED).shuffle(rows)
    rows, pairs = rows[: arguments.rows], Pairs()
    options = ("--model", arguments.model, "--log-level", "warning", "--precision")
    async with (
        started("worker", *options, "fp32") as fp32,
        started("worker", *options, "int8") as int8,
        aiohttp.ClientSession(trust_env=False) as session,
    ):
        await check_precision(session, fp32, "fp32")
        await check_precision(session, int8, "int8")
        for start in range(0, len(rows), TEXTS_PER_CALL):
            part = rows[start : start + TEXTS_PER_CALL]
            exact, rounded = await ask(session, fp32, part), await ask(session, int8, part)
            for row, one, other in zip(part, exact, rounded, strict=True):
                pairs.add(row, {"fp32": one, "int8": other})
    print(last_line(pairs.summary()))


if __name__ == "__main__":
    asyncio.run(main())
