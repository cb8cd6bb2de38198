"""What `qwen-aio classify` costs: its share of the engine's own rate, and whether its memory stays flat.

    python -m benchmarks.classify [--short]

Rate: rows of a file are classified with the bundled model, and the same texts are put to the same engine without
file, order or journal, in turns; the ratio of the two is what counts. Memory: rows that a scripted engine answers at
once; the slope of the resident memory over the second half. Last line of stdout: one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # psutil ships no types

from benchmarks.servers import last_line
from qwen_aio.bulk.asking import AT_ONCE, Asked
from qwen_aio.bulk.table import open_table
from qwen_aio.cli.classify import write_labels
from qwen_aio.cli.services import service_here
from qwen_aio.config import Settings
from qwen_aio.core import Capabilities, ContextLimits, Request
from qwen_aio.result import Decision, Result, Timings, Usage
from qwen_aio.tasks.loader import load_tasks

ASK = Request("-", mode="sentiment", request_id="classify")
TEXTS = (
    "东西很好，下次还来，物流也快。",
    "not bad at all, though the colour is a little off",
    "太差了，客服没人理",
    "it arrived",
)
ROWS, ROUNDS, SHORT_ROWS, SHORT_ROUNDS = 2_000, 5, 200, 2
MANY, SHORT_MANY, NUM_POINTS = 1_000_000, 20_000, 20


class Scripted:
    """Answers every request with the same decision, at once."""

    def __init__(self) -> None:
        tasks = load_tasks(Path("prompts"))
        self._offer = Capabilities(tasks, ContextLimits(2048, 1024), "scripted", "none")
        scores = {label.name: 1 / 3 for label in tasks["sentiment"].labels}
        first = tasks["sentiment"].labels[0]
        decision = Decision(
            task="sentiment",
            label=first.name,
            emotion=first.text,
            emoji=first.emoji,
            confidence="低",
            best_label=first.name,
            probability=1 / 3,
            scores=scores,
            abstained=False,
            label_mass=1.0,
            text="",
            merged="",
            usage=Usage(),
            timings=Timings(),
        )
        self._result = Result("id", "sentiment", "mode", "hash", "scripted", "none", decision=decision)
        self.count = 0
        self.points: list[tuple[int, float]] = []  # rows, MB
        self.every = 1  # rows between two points

    async def run(self, request: Request) -> Result:  # noqa: ARG002  as Asked has it
        """The decision; every so often the resident memory is noted."""
        self.count += 1
        if self.count % self.every == 0:
            self.points.append((self.count, psutil.Process().memory_info().rss / 1e6))
        return self._result

    async def capabilities(self) -> Capabilities:
        """The shipped tasks."""
        return self._offer


def table_file(folder: Path, rows: int) -> Path:
    """A CSV file of so many rows."""
    path = folder / "rows.csv"
    with path.open("w", encoding="utf-8") as file:
        file.write("id,text\n")
        file.writelines(f'{number},"{number} {TEXTS[number % len(TEXTS)]}"\n' for number in range(rows))
    return path


async def seconds_of(work: Coroutine[None, None, object]) -> float:
    began = time.perf_counter()
    await work
    return time.perf_counter() - began


async def bare(asked: Asked, texts: list[str]) -> None:
    """All texts, as many at once as classify has."""
    free = asyncio.Semaphore(AT_ONCE)

    async def one(text: str) -> None:
        async with free:
            await asked.run(replace(ASK, text=text))

    await asyncio.gather(*map(one, texts))


async def rate(folder: Path, rows: int, rounds: int) -> dict[str, float]:
    """Rows a second through classify and without it, and the median ratio of the rounds."""
    table = open_table(table_file(folder, rows))
    texts = [table.value(row, "text") for row in table.rows()]
    ratios, through, without = [], [], []
    async with service_here(Settings(model="bundled"), named=ASK) as asked:
        await bare(asked, texts[:AT_ONCE])
        for number in range(rounds):
            without.append(rows / await seconds_of(bare(asked, texts)))
            work = write_labels(asked, ASK, table, "text", folder / f"out-{number}.csv", rows)
            through.append(rows / await seconds_of(work))
            ratios.append(through[-1] / without[-1])
    return {
        "classify_per_s": round(statistics.median(through), 1),
        "engine_per_s": round(statistics.median(without), 1),
        "ratio": round(statistics.median(ratios), 3),
        "ratio_least": round(min(ratios), 3),
    }


async def memory(folder: Path, rows: int) -> dict[str, float]:
    """Bytes of resident memory a row over the second half, and the rate with an engine that costs nothing."""
    scripted = Scripted()
    scripted.every = rows // NUM_POINTS
    table = open_table(table_file(folder, rows))
    seconds = await seconds_of(write_labels(scripted, ASK, table, "text", folder / "out.csv", rows))
    later = scripted.points[NUM_POINTS // 2 :]
    slope = statistics.linear_regression([at for at, _ in later], [megabytes for _, megabytes in later]).slope
    return {"bytes_per_row": round(slope * 1e6, 2), "scripted_per_s": round(rows / seconds)}


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true")
    is_short = parser.parse_args().short
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as other:
        found = await memory(Path(folder), SHORT_MANY if is_short else MANY)
        found |= await rate(Path(other), *((SHORT_ROWS, SHORT_ROUNDS) if is_short else (ROWS, ROUNDS)))
    print(last_line({**found}))


if __name__ == "__main__":
    asyncio.run(main())
