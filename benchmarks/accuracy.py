"""How often the model is right, on labelled rows it was not trained on, through the product's own /v1/run.

    python -m benchmarks.accuracy --data DIR [--url http://127.0.0.1:7861] [--short]

DIR holds sentiment_zh.jsonl.gz and sentiment_en.jsonl.gz (rows {"src", "label", "part", "text"}); only `part: "dev"`
is asked. Without --url a worker with the bundled model is started for the time of the measurement. In sets of two
classes a neutral answer counts as an error. Last line of stdout: one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import math
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from benchmarks.servers import last_line, started

FILES = ("sentiment_zh.jsonl.gz", "sentiment_en.jsonl.gz")
TEXTS_PER_CALL = 64
SHORT_ROWS = 100  # a set, with --short


@dataclass(frozen=True)
class Row:
    """One labelled text."""

    source: str
    label: str
    text: str


@dataclass
class Tally:
    """What came of one set."""

    right: int = 0
    asked: int = 0
    abstained: int = 0

    @property
    def accuracy(self) -> float:
        return self.right / self.asked

    @property
    def half_width(self) -> float:
        """Of the 95 % interval (normal approximation)."""
        return 1.96 * math.sqrt(self.accuracy * (1 - self.accuracy) / self.asked)


def read_rows(data: Path) -> Iterator[Row]:
    """The dev rows of all sets."""
    for name in FILES:
        with gzip.open(data / name, "rt", encoding="utf-8") as file:
            for line in file:
                row = json.loads(line)
                if row["part"] == "dev":
                    yield Row(row["src"], row["label"], row["text"])


async def measure(url: str, rows: list[Row]) -> dict[str, Tally]:
    """Ask the server at `url` about every row."""
    tallies: dict[str, Tally] = defaultdict(Tally)
    async with aiohttp.ClientSession(base_url=url, trust_env=False) as session:
        for start in range(0, len(rows), TEXTS_PER_CALL):
            part = rows[start : start + TEXTS_PER_CALL]
            body = {"texts": [row.text for row in part], "mode": "sentiment"}
            async with session.post("/v1/run", json=body) as response:
                response.raise_for_status()
                answers = (await response.json())["results"]
            for row, answer in zip(part, answers, strict=True):
                tally = tallies[row.source]
                tally.asked += 1
                tally.right += answer["label"] == row.label
                tally.abstained += answer["abstained"]
    return tallies


def chosen_rows(data: Path, *, is_short: bool) -> list[Row]:
    """Every dev row, or the first hundred of each set."""
    counts: dict[str, int] = defaultdict(int)
    rows = []
    for row in read_rows(data):
        counts[row.source] += 1
        if row.text.strip() and (not is_short or counts[row.source] <= SHORT_ROWS):
            rows.append(row)
    return rows


@asynccontextmanager
async def server(url: str | None) -> AsyncIterator[str]:
    """`url`, or a worker of our own."""
    if url:
        yield url
    else:
        async with started("worker", "--model", "bundled") as own:
            yield own


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--url")
    parser.add_argument("--short", action="store_true")
    arguments = parser.parse_args()
    rows = chosen_rows(arguments.data, is_short=arguments.short)
    async with server(arguments.url) as url:
        tallies = await measure(url, rows)
    for source, tally in sorted(tallies.items(), key=lambda item: -item[1].asked):
        print(
            f"{source:26s} {tally.accuracy:.3f} ± {tally.half_width:.3f}"
            f"  n={tally.asked} neutral-when-unsure={tally.abstained}"
        )
    shops = [tallies[name] for name in ("online_shopping_10_cats", "waimai_10k")]
    summary: dict[str, object] = {name: round(tally.accuracy, 4) for name, tally in tallies.items()}
    summary["online_shopping_10_cats+waimai_10k"] = round(sum(t.right for t in shops) / sum(t.asked for t in shops), 4)
    print(last_line(summary))


if __name__ == "__main__":
    asyncio.run(main())
