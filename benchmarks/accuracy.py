"""How often the model is right, on labelled rows it was not trained on: what `qwen-aio eval` finds through /v1/run.

    python -m benchmarks.accuracy --data DIR [--url http://127.0.0.1:7861] [--short]

DIR holds sentiment_zh.jsonl.gz and sentiment_en.jsonl.gz (rows {"src", "label", "part", "text"}); only `part: "dev"`
is asked. Without --url a worker with the bundled model is started for the time of the measurement. In sets of two
classes a neutral answer counts as an error, and macro-F1 is the mean over the labels that a set has. The calibration
error is that of the rows that no temperature was fitted on. Last line of stdout: one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.servers import last_line, started
from training.corpus import NOT_JUDGED, Labelled, is_fitted_on, sentiment_rows

SHORT_ROWS = 100  # a set, with --short
ENGLISH = ("semeval2017_4a", "tweeteval_sentiment", "sst2", "sst5", "mr")
POOLS: Mapping[str, Callable[[str], bool]] = {
    "shop and takeaway": lambda source: source in ("online_shopping_10_cats", "waimai_10k"),
    "film": lambda source: source in ("sst2", "mr"),
    "Chinese": lambda source: source not in (*ENGLISH, NOT_JUDGED),
    "English": lambda source: source in ENGLISH,
}


async def evaluated(rows: Sequence[Labelled], url: str) -> dict[str, Any]:
    """The `metrics` of `qwen-aio eval` on `rows`."""
    with TemporaryDirectory() as folder:
        file, found = Path(folder) / "rows.csv", Path(folder) / "found.json"
        write_rows(rows, file)
        words = ("-m", "qwen_aio.cli.main", "eval", str(file), "--url", url, "--no-flips", "--json", str(found))
        process = await asyncio.create_subprocess_exec(sys.executable, *words, stdout=asyncio.subprocess.DEVNULL)
        if await process.wait() != 0:
            raise SystemExit(f"eval ended with status {process.returncode}")
        metrics: dict[str, Any] = json.loads(found.read_text(encoding="utf-8"))["metrics"]
        return metrics


def write_rows(rows: Sequence[Labelled], path: Path) -> None:
    """A CSV with the columns text and label, which `eval` reads."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *((row.text, row.label) for row in rows)])


def macro_f1(metrics: Mapping[str, Any]) -> float:
    """Mean over the labels that occur."""
    return fmean(label["f1"] for label in metrics["of_labels"] if label["support"])


def chosen_rows(data: Path, *, is_short: bool) -> dict[str, list[Labelled]]:
    """Every dev row, or the first hundred of each set: set -> rows."""
    sets: dict[str, list[Labelled]] = defaultdict(list)
    for row in sentiment_rows(data, "dev"):
        if row.text.strip() and (not is_short or len(sets[row.source]) < SHORT_ROWS):
            sets[row.source].append(row)
    return sets


def with_pools(sets: Mapping[str, list[Labelled]]) -> Iterator[tuple[str, list[Labelled]]]:
    """The sets, the largest first, and those that are reported together."""
    yield from sorted(sets.items(), key=lambda item: -len(item[1]))
    for name, is_chosen in POOLS.items():
        yield name, [row for source, rows in sets.items() if is_chosen(source) for row in rows]


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
    summary: dict[str, object] = {}
    async with server(arguments.url) as url:
        for name, rows in with_pools(chosen_rows(arguments.data, is_short=arguments.short)):
            metrics = await evaluated(rows, url)
            unfitted = await evaluated([row for row in rows if not is_fitted_on(row.text)], url)
            right, error = metrics["accuracy"], unfitted["calibration_error"]["value"]
            figures = f"F1 {macro_f1(metrics):.3f}  ECE {error:.3f}  abstained {metrics['abstained']['count']}"
            print(
                f"{name:24s} {right['value']:.3f} ({right['low']:.3f} to {right['high']:.3f}; n={len(rows)})  {figures}"
            )
            summary[name] = round(right["value"], 4)
            summary[f"{name} f1"] = round(macro_f1(metrics), 4)
            summary[f"{name} ece"] = round(error, 4)
    print(last_line(summary))


if __name__ == "__main__":
    asyncio.run(main())
