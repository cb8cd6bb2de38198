"""What an explanation costs, and whether the phrase it names first is the one that matters.

    python -m benchmarks.explain --data DIR [--model bundled] [--rows 500]

One worker is asked about dev rows of all sets, one after another. Cost: decisions and explained decisions in turns, of
other rows each, so that nothing is remembered. Pieces: a text, then the same text without each of 4, 6, 8 and 12 equal
pieces, all at once, in decisions. Faithfulness: the text without the first phrase of the explanation and
the text without another stretch of as many characters are decided anew; how often, and by how much, does the first one
change the probability of the label more? Intervals are Wilson's (95 %). Last line of stdout: one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp

from benchmarks.servers import last_line, started
from qwen_aio.evaluation.share import Share
from qwen_aio.visible import has_visible
from training.corpus import sentiment_rows

SEED = 1
PIECES = (4, 6, 8, 12)


async def ask(session: aiohttp.ClientSession, text: str, **more: Any) -> tuple[dict[str, Any], float]:
    """The decision about `text`, and the milliseconds it took."""
    began = time.perf_counter()
    async with session.post("/v1/run", json={"text": text, "mode": "sentiment"} | more) as response:
        response.raise_for_status()
        found: dict[str, Any] = await response.json()
    return found, (time.perf_counter() - began) * 1000


async def cost(session: aiohttp.ClientSession, texts: list[str]) -> dict[str, float]:
    """Medians, and the ratio of an explained decision to a plain one."""
    plain: list[float] = []
    explained: list[float] = []
    alone: list[float] = []
    for number, text in enumerate(texts):
        found, took_ms = await ask(session, text, explain=number % 2 == 1)
        (explained if number % 2 else plain).append(took_ms)
        if found["explanation"] and found["explanation"]["phrases"]:
            alone.append(found["explanation"]["total_ms"])
    return {
        "decision_ms": round(median(plain), 1),
        "explained_ms": round(median(explained), 1),
        "explanation_alone_ms": round(median(alone), 1),
        "explanation_in_decisions": round((median(explained) - median(plain)) / median(plain), 2),
    }


async def without_pieces(session: aiohttp.ClientSession, texts: list[str]) -> dict[str, float]:
    """Number of pieces -> the time of all texts without one of them, in decisions about the whole text; medians."""
    ratios: dict[int, list[float]] = {count: [] for count in PIECES}
    for number, text in enumerate(text for text in texts if len(text) >= max(PIECES)):
        count = PIECES[number % len(PIECES)]
        _, alone_ms = await ask(session, text)
        cuts = [len(text) * at // count for at in range(count + 1)]
        others = [text[:start] + text[end:] for start, end in pairwise(cuts)]
        began = time.perf_counter()
        body = {"texts": [other for other in others if has_visible(other)], "mode": "sentiment"}
        async with session.post("/v1/run", json=body) as response:
            response.raise_for_status()
            await response.read()
        ratios[count].append((time.perf_counter() - began) * 1000 / alone_ms)
    return {f"pieces_{count}": round(median(of_count), 2) for count, of_count in ratios.items()}


async def change(session: aiohttp.ClientSession, text: str, start: int, length: int, before: dict[str, Any]) -> float:
    """How much the probability of the label moves when a stretch of `text` is left out."""
    after, _ = await ask(session, text[:start] + text[start + length :])
    return abs(float(before["probability"]) - float(after["scores"][before["best_label"]]))


async def faithfulness(session: aiohttp.ClientSession, texts: list[str]) -> tuple[Share, float, float]:
    """How often the first phrase moves more than a random stretch, and the mean change of both."""
    rng = random.Random(SEED)
    firsts, others = [], []
    for text in texts:
        before, _ = await ask(session, text, explain=True)
        phrases = before["explanation"]["phrases"]
        if len(phrases) < 2:
            continue
        start, length = phrases[0]["start"], len(phrases[0]["text"])
        starts = [at for at in range(len(text) - length + 1) if abs(at - start) >= length]
        starts = [at for at in starts if has_visible(text[:at] + text[at + length :])]
        if starts:
            firsts.append(await change(session, text, start, length, before))
            others.append(await change(session, text, rng.choice(starts), length, before))
    wins = sum(first > other for first, other in zip(firsts, others, strict=True))
    return Share(wins, len(firsts)), sum(firsts) / len(firsts), sum(others) / len(others)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--rows", type=int, default=500)
    arguments = parser.parse_args()
    rows = [row.text for row in sentiment_rows(arguments.data, "dev") if row.text.strip()]
    texts = random.Random(SEED).sample(rows, 3 * arguments.rows)
    async with (
        started("worker", "--model", arguments.model) as url,
        aiohttp.ClientSession(base_url=url, trust_env=False) as session,
    ):
        costs = await cost(session, texts[: arguments.rows])
        costs |= await without_pieces(session, texts[2 * arguments.rows :])
        wins, first, other = await faithfulness(session, texts[arguments.rows : 2 * arguments.rows])
    print(costs)
    print(f"the first phrase moves the label more than a random stretch of its length in {wins}")
    print(f"mean change of the probability: first phrase {first:.3f}, random stretch {other:.3f}")
    print(last_line({**costs, "wins": round(wins.value, 4), "rows": wins.total}))


if __name__ == "__main__":
    asyncio.run(main())
