"""What the safety decision adds to an answer: two workers with the bundled model, one without it, asked in turns.

    python -m benchmarks.safety.cost [--short]

Every message of benchmarks/chat is answered in mode chat, 16 tokens at most: milliseconds until the first piece, and
until the end. The first sentence of either is held back until it is whole. Last line of stdout: one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from benchmarks.chat.__main__ import rows
from benchmarks.servers import ROOT, last_line, started
from qwen_aio.client.async_client import AsyncClient
from qwen_aio.core import Request, SamplingWish
from qwen_aio.result import TextDelta

MAX_TOKENS = 16
ROUNDS = 5


def tasks_without_check(folder: Path) -> None:
    """The shipped tasks in `folder`, safety switched off."""
    shutil.copytree(ROOT / "prompts", folder, dirs_exist_ok=True)
    path = folder / "safety" / "task.toml"
    text = path.read_text(encoding="utf-8")
    assert text.count("enabled = true") == 1
    path.write_text(text.replace("enabled = true", "enabled = false"), encoding="utf-8")


async def timed(client: AsyncClient, text: str, seed: int) -> dict[str, float]:
    """Milliseconds of one streamed answer."""
    sampling = SamplingWish(max_tokens=MAX_TOKENS, seed=seed)
    begun, first = time.perf_counter(), 0.0
    async for event in client.stream(Request(text, mode="chat", sampling=sampling, request_id="cost")):
        if isinstance(event, TextDelta):
            first = first or time.perf_counter()
    ended = time.perf_counter()
    return {"first piece": ((first or ended) - begun) * 1000, "answer": (ended - begun) * 1000}


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true")
    rounds = 1 if parser.parse_args().short else ROUNDS
    texts = [row["text"] for row in rows("messages.jsonl")]
    times: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with tempfile.TemporaryDirectory() as prompts:
        tasks_without_check(Path(prompts))
        flags = ("--model", "bundled", "--log-level", "error")
        async with (
            started("worker", *flags) as checking,
            started("worker", *flags, "--prompts-dir", prompts) as trusting,
            AsyncClient(checking) as with_check,
            AsyncClient(trusting) as without,
        ):
            for number in range(rounds + 1):
                for text in texts:
                    for side, client in (("with", with_check), ("without", without)):
                        for what, ms in (await timed(client, text, number)).items():
                            if number:  # the first round opens connections and warms both up
                                times[what][side].append(ms)
    summary = {
        f"{what} {side} ms": round(statistics.median(found), 1)
        for what, sides in times.items()
        for side, found in sides.items()
    }
    for what, sides in times.items():
        added = sorted(w - wo for w, wo in zip(sides["with"], sides["without"], strict=True))
        quarters = statistics.quantiles(added, n=4)
        print(
            f"{what}: added {quarters[1]:.1f} ms (middle half {quarters[0]:.1f} to {quarters[2]:.1f}), n={len(added)}"
        )
        summary[f"{what} added ms"] = round(quarters[1], 1)
    print(last_line(dict(summary)))


if __name__ == "__main__":
    asyncio.run(main())
