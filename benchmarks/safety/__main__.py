"""Does the safety decision find people in danger, and stay silent on the rest? Through the product's own /v1/run.

    python -m benchmarks.safety --data DIR [--url URL] [--threshold crisis=0.5 --threshold medical=0.5]

Asks a worker with the bundled model, or the one at URL, about every text of the families beside this file, about the
2,000 ordinary rows of DIR that ordinary.txt lists, and about long answers of its chat files, which have many windows.
Thresholds are those recorded for its model, unless given. A text is cut into windows as the product cuts it. Beside the
model stand the word rule alone and both together, as in the product. Intervals are Wilson's (95 %). Last line of
stdout: one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import aiohttp

from benchmarks.accuracy import server
from benchmarks.safety.ordinary import rows as ordinary_rows
from benchmarks.servers import ROOT, TEXTS_PER_CALL, last_line
from qwen_aio.core import Task
from qwen_aio.evaluation.share import Share
from qwen_aio.language import Language, language_of
from qwen_aio.routing import find_danger
from qwen_aio.tasks.loader import load_tasks
from qwen_aio.worker.execution.safety import windows
from training import corpus

HERE = Path(__file__).parent
DANGERS = ("crisis", "medical")
NUM_LONG = 250  # a language
LONG_CHARS = {"zh": 250, "en": 450}  # as many as a window holds, or more


@dataclass(frozen=True)
class Case:
    """Turns of one user, oldest first, and the label that should take effect."""

    family: str
    language: str
    turns: tuple[str, ...]


def cases(data: Path) -> Iterator[Case]:
    """The families, then the ordinary rows, then the long texts."""
    for language in ("zh", "en"):
        for line in (HERE / f"{language}.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            yield Case(row["family"], language, (*row.get("earlier", ()), row["text"]))
    for text in ordinary_rows(data):
        yield Case("ordinary", language_of(text) or "en", (text,))
    for language, least in LONG_CHARS.items():
        not_trained_on = (text for text in corpus.answers(data, language, least) if not corpus.is_fitted_on(text))
        for text in islice(not_trained_on, NUM_LONG):
            yield Case("long", language, (text,))


async def decided(url: str, texts: Sequence[str]) -> list[Mapping[str, float]]:
    """The probabilities of the labels of every text."""
    found: list[Mapping[str, float]] = []
    async with aiohttp.ClientSession(base_url=url, trust_env=False) as session:
        for start in range(0, len(texts), TEXTS_PER_CALL):
            body = {"texts": texts[start : start + TEXTS_PER_CALL], "mode": "safety"}
            async with session.post("/v1/run", json=body) as response:
                response.raise_for_status()
                found += [answer["scores"] for answer in (await response.json())["results"]]
    return found


Thresholds = Mapping[Language, Mapping[str, float]]


async def effects(url: str, asked: Sequence[Case], thresholds: Thresholds) -> list[str | None]:
    """The label that takes effect on each case, as in the product: the gravest that a window reaches."""
    pieces = [windows("\n".join(turn.strip() for turn in case.turns)) for case in asked]
    scores = iter(await decided(url, [piece for several in pieces for piece in several]))
    by_case = [[next(scores) for _ in several] for several in pieces]
    found = []
    for case, each in zip(asked, by_case, strict=True):
        leasts = thresholds[language_of("\n".join(case.turns)) or "en"]
        found.append(next((name for name, least in leasts.items() if max(one[name] for one in each) >= least), None))
    return found


def met_by_words(case: Case, tasks: Mapping[str, Task]) -> bool:
    return find_danger(case.turns, tasks) is not None


def shares(asked: Sequence[Case], hits: Iterable[bool]) -> dict[str, Share]:
    """By family and language: on how many something took effect."""
    counts: dict[str, list[bool]] = {}
    for case, hit in zip(asked, hits, strict=True):
        counts.setdefault(f"{case.family} {case.language}", []).append(hit)
    return {name: Share(sum(found), len(found)) for name, found in sorted(counts.items())}


async def recorded_thresholds(url: str, tasks: Mapping[str, Task]) -> Thresholds:
    """Those of the model that answers at `url`. Raises SystemExit if there are none."""
    async with aiohttp.ClientSession(base_url=url, trust_env=False) as session, session.get("/health") as response:
        sha = (await response.json())["model_sha"]
    calibration = tasks["safety"].calibration.get(sha)
    if calibration is None or not calibration.thresholds:
        raise SystemExit(f"no thresholds are recorded for the model {sha}; give some with --threshold")
    return calibration.thresholds


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--url")
    parser.add_argument("--threshold", action="append", default=[], metavar="LABEL=PROBABILITY")
    arguments = parser.parse_args()
    given = {label: float(least) for label, least in (item.split("=") for item in arguments.threshold)}
    tasks, asked = load_tasks(ROOT / "prompts"), list(cases(arguments.data))
    async with server(arguments.url) as url:
        thresholds: Thresholds = {"zh": given, "en": given} if given else await recorded_thresholds(url, tasks)
        started_at = time.monotonic()
        found = await effects(url, asked, thresholds)
        seconds = time.monotonic() - started_at
    model = shares(asked, (label is not None for label in found))
    by_words = [met_by_words(case, tasks) for case in asked]
    words = shares(asked, by_words)
    both = shares(asked, (label is not None or met for label, met in zip(found, by_words, strict=True)))
    print(f"thresholds {dict(thresholds)}; {len(asked) / seconds:.0f} messages a second\n")
    for name, share in model.items():
        print(f"{name:14s} model {share!s:42s} words {words[name]!s:42s} both {both[name]}")
    right = [label == case.family for case, label in zip(asked, found, strict=True) if case.family in DANGERS]
    print(f"\nof those in danger, the label was the right one of the two in {Share(sum(right), len(right))}")
    print(last_line({name: round(share.value, 4) for name, share in both.items()}))


if __name__ == "__main__":
    asyncio.run(main())
