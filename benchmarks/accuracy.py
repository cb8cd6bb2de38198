"""How often the model is right, on labelled rows it was not trained on, through the product's own /v1/run.

    python -m benchmarks.accuracy --data DIR [--url http://127.0.0.1:7861] [--short]

DIR holds sentiment_zh.jsonl.gz and sentiment_en.jsonl.gz (rows {"src", "label", "part", "text"}); only `part: "dev"`
is asked. Without --url a worker with the bundled model is started for the time of the measurement. In sets of two
classes a neutral answer counts as an error. Intervals are Wilson's (95 %). Last line of stdout: one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

import aiohttp

from benchmarks.servers import last_line, started
from qwen_aio.evaluation.share import Share
from training.corpus import NOT_JUDGED, Labelled, is_fitted_on, sentiment_rows

TEXTS_PER_CALL = 64
SHORT_ROWS = 100  # a set, with --short
NUM_BINS = 15
ENGLISH = ("semeval2017_4a", "tweeteval_sentiment", "sst2", "sst5", "mr")
POOLS: Mapping[str, Callable[[str], bool]] = {
    "shop and takeaway": lambda source: source in ("online_shopping_10_cats", "waimai_10k"),
    "film": lambda source: source in ("sst2", "mr"),
    "Chinese": lambda source: source not in (*ENGLISH, NOT_JUDGED),
    "English": lambda source: source in ENGLISH,
}


@dataclass(frozen=True)
class Answer:
    """What came of one row. A neutral label may mean unsure; `best` is the most probable one all the same."""

    row: Labelled
    label: str
    best: str
    probability: float  # of `best`
    abstained: bool


@dataclass
class Tally:
    """What came of one set, or of several pooled."""

    answers: list[Answer] = field(default_factory=list)

    @property
    def right(self) -> Share:
        return Share(sum(answer.label == answer.row.label for answer in self.answers), len(self.answers))

    @property
    def macro_f1(self) -> float:
        """Mean over the labels that occur in the set."""
        scores = []
        for label in {answer.row.label for answer in self.answers}:
            hits = sum(answer.label == label == answer.row.label for answer in self.answers)
            said = sum(answer.label == label for answer in self.answers)
            true = sum(answer.row.label == label for answer in self.answers)
            scores.append(2 * hits / (said + true))
        return fmean(scores)

    @property
    def calibration_error(self) -> float:
        """Expected calibration error (Guo et al. 2017; equal bins) on rows that no temperature is fitted on."""
        bins: dict[int, list[Answer]] = defaultdict(list)
        judged = [answer for answer in self.answers if not is_fitted_on(answer.row.text)]
        for answer in judged:
            bins[min(int(answer.probability * NUM_BINS), NUM_BINS - 1)].append(answer)
        gaps = (
            abs(sum(answer.best == answer.row.label for answer in part) - sum(answer.probability for answer in part))
            for part in bins.values()
        )
        return sum(gaps) / max(1, len(judged))


async def measure(url: str, rows: list[Labelled]) -> dict[str, Tally]:
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
                best, probability = max(answer["scores"].items(), key=lambda item: item[1])
                tallies[row.source].answers.append(Answer(row, answer["label"], best, probability, answer["abstained"]))
    return tallies


def chosen_rows(data: Path, *, is_short: bool) -> list[Labelled]:
    """Every dev row, or the first hundred of each set."""
    counts: dict[str, int] = defaultdict(int)
    rows = []
    for row in sentiment_rows(data, "dev"):
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
    summary: dict[str, object] = {}
    for name, tally in (*sorted(tallies.items(), key=lambda item: -len(item[1].answers)), *pooled(tallies)):
        unsure = sum(answer.abstained for answer in tally.answers)
        figures = f"F1 {tally.macro_f1:.3f}  ECE {tally.calibration_error:.3f}  unsure {unsure}"
        print(f"{name:24s} {tally.right!s:42s} {figures}")
        summary[name] = round(tally.right.value, 4)
        summary[f"{name} f1"] = round(tally.macro_f1, 4)
        summary[f"{name} ece"] = round(tally.calibration_error, 4)
    print(last_line(summary))


def pooled(tallies: Mapping[str, Tally]) -> Iterator[tuple[str, Tally]]:
    """Sets that are reported together."""
    for name, chosen in POOLS.items():
        yield name, Tally([answer for source, tally in tallies.items() if chosen(source) for answer in tally.answers])


if __name__ == "__main__":
    asyncio.run(main())
