"""Short decisions beside long ones: how long they wait for each other, and how answers fare beside them.

    python -m benchmarks.mixed [--model DIR] [--precision int8] [--old CHECKOUT] [--short]

One worker, asked itself and through a balancer. Short decisions come at random moments, alone and while 8 or 16 callers
ask one full-context decision after the other, the last time beside four callers of answers, too. Printed is the median
time of a short one as a multiple of what it takes alone (goal: 3). With --old, the folder of another commit, that side
takes turns with ours in every round; the rates of long decisions (goal: 0.9) and of answers are shares of that side's.
Last line of stdout: one JSON object; each figure is the median of all rounds, with the lowest and the highest.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import aiohttp

from benchmarks.schedule import text
from benchmarks.servers import ROOT, balancer, last_line, workers

SHORT_CHARS, LONG_CHARS, PART_CHARS = 12, 4000, 400
ANSWER_TOKENS = 48
SHORT_PER_S = 2.0
WARM_S = 2.0  # until everybody has something under way


@dataclass(frozen=True)
class Load:
    """What short decisions meet: so many callers, each with one call under way."""

    name: str
    num_long: int = 0
    num_answering: int = 0


ALONE = Load("alone")
LOADS = (Load("8 long", 8), Load("16 long", 16), Load("8 long and 4 answers", 8, 4))


@dataclass(frozen=True)
class Size:
    """How long everything takes."""

    seconds: float  # of one load
    rounds: int


FULL, SHORT = Size(20.0, 3), Size(4.0, 1)


@dataclass(frozen=True)
class Heard:
    """What came of one load. Figures by name."""

    short_ms: list[float] = field(default_factory=list)
    counts: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    first_token_ms: list[float] = field(default_factory=list)


class Callers:
    """Everybody who asks one server under one load."""

    def __init__(self, session: aiohttp.ClientSession, random: Random, *, seconds: float) -> None:
        self.heard = Heard()
        self._session = session
        self._random = random
        self._begin = time.perf_counter() + WARM_S
        self._end = self._begin + seconds

    async def meet(self, load: Load) -> Heard:
        """Short ones while there is `load`; of all others only what ends meanwhile is counted."""
        async with asyncio.TaskGroup() as tasks:
            busy = [tasks.create_task(self._again(self._read)) for _ in range(load.num_long)]
            busy += [tasks.create_task(self._again(self._answer)) for _ in range(load.num_answering)]
            await asyncio.sleep(WARM_S)
            asking = []
            while time.perf_counter() < self._end:
                asking.append(tasks.create_task(self._decide()))
                await asyncio.sleep(self._random.expovariate(SHORT_PER_S))
            await asyncio.wait(asking)
            for task in busy:
                task.cancel()
        return self.heard

    async def _again(self, ask: Callable[[], Awaitable[None]]) -> None:
        while True:
            await ask()

    async def _decide(self) -> None:
        started = time.perf_counter()
        await self._run("sentiment", SHORT_CHARS)
        self.heard.short_ms.append((time.perf_counter() - started) * 1000)

    async def _read(self) -> None:
        await self._run("sentiment", LONG_CHARS)
        self._count("long", 1)

    async def _answer(self) -> None:
        reply = (await self._run("chat", SHORT_CHARS, max_tokens=ANSWER_TOKENS))["reply"]
        self._count("tokens", reply["usage"]["completion_tokens"])
        self.heard.first_token_ms.append(reply["timings"]["queue_ms"] + reply["timings"]["prefill_ms"])

    def _count(self, name: str, number: float) -> None:
        if self._begin <= time.perf_counter() < self._end:
            self.heard.counts[name] += number

    async def _run(self, mode: str, num_chars: int, **more: object) -> dict[str, Any]:
        parts = (text(self._random, min(num_chars, PART_CHARS)) for _ in range(max(num_chars // PART_CHARS, 1)))
        async with self._session.post("/v1/run", json={"text": "".join(parts), "mode": mode, **more}) as response:
            response.raise_for_status()
            found: dict[str, Any] = await response.json()
            return found


@asynccontextmanager
async def side(root: Path, flags: Sequence[str]) -> AsyncIterator[dict[str, str]]:
    """The addresses of a worker and of a balancer before it."""
    with tempfile.TemporaryDirectory() as status_dir:
        async with workers(1, status_dir, *flags, root=root) as [worker], balancer(1, status_dir, root=root) as front:
            yield {"worker": worker.url, "balancer": front.url}


async def ask(url: str, load: Load, *, seconds: float, seed: int) -> Heard:
    """One load on one server; the same seed is the same texts at the same moments."""
    timeout, connector = aiohttp.ClientTimeout(total=300), aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(url, timeout=timeout, connector=connector, trust_env=False) as session:
        return await Callers(session, Random(seed), seconds=seconds).meet(load)


async def measure(url: str, size: Size, *, seed: int) -> dict[str, dict[str, float]]:
    """Every load in one round: name -> figures."""
    alone_ms = median((await ask(url, ALONE, seconds=size.seconds / 2, seed=seed)).short_ms)
    found = {ALONE.name: {"short_ms": alone_ms}}
    for number, load in enumerate(LOADS, start=1):
        heard = await ask(url, load, seconds=size.seconds, seed=seed + number)
        short_ms = median(heard.short_ms)
        rates = {f"{name}_per_s": count / size.seconds for name, count in heard.counts.items()}
        found[load.name] = {"short_ms": short_ms, "to_alone": short_ms / alone_ms, **rates}
        if heard.first_token_ms:
            found[load.name]["first_token_ms"] = median(heard.first_token_ms)
    return found


def summary(rounds: Sequence[dict[str, dict[str, dict[str, float]]]]) -> dict[str, str]:
    """Of rounds, side -> load -> figure: the figures of each side, and ours as shares of the old one's."""
    figures: defaultdict[str, list[float]] = defaultdict(list)
    for found in rounds:
        for name, loads in found.items():
            for load, values in loads.items():
                for figure, value in values.items():
                    figures[f"{name}, {load}: {figure}"].append(value)
                    if name == "ours" and figure != "to_alone" and "old" in found:
                        figures[f"ours / old, {load}: {figure}"].append(value / found["old"][load][figure])
    return {name: f"{median(values):.3g} ({min(values):.3g} to {max(values):.3g})" for name, values in figures.items()}


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--old", type=Path, help="folder of another commit, whose side takes turns with ours")
    parser.add_argument("--short", action="store_true")
    arguments = parser.parse_args()
    size, flags = SHORT if arguments.short else FULL, ("--model", arguments.model, "--precision", arguments.precision)
    roots = {"ours": ROOT} | ({"old": arguments.old.resolve()} if arguments.old else {})
    rounds: dict[str, list[dict[str, Any]]] = {"worker": [], "balancer": []}
    async with AsyncExitStack() as stack:
        urls = {name: await stack.enter_async_context(side(root, flags)) for name, root in roots.items()}
        for number in range(size.rounds):
            names = list(urls) if number % 2 else list(reversed(urls))
            for place, (way, done) in enumerate(rounds.items()):
                seed = 100 * (len(rounds) * number + place)  # a worker remembers texts that it has met before
                done.append({name: await measure(urls[name][way], size, seed=seed) for name in names})
    results = {way: summary(done) for way, done in rounds.items()}
    for way, told in results.items():
        for name, value in told.items():
            print(f"{way:9s} {name:50s} {value}")
    print(last_line({"model": arguments.model, **results}))


if __name__ == "__main__":
    asyncio.run(main())
