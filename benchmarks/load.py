"""Many workers under load: which policy, how many workers, and what a slow one costs.

    python -m benchmarks.load --data DIR [--part policies|lengths|workers] [--model DIR] [--short]

policies  decisions and answers shaped by the Azure trace, three workers, one of them slowed to a quarter: all policies
lengths   decisions of ten and of two hundred characters: round_robin against weighted, the published reason to balance
workers   1, 2 and 4 workers on short texts, closed and open loop

All sides of a comparison take turns within one call, over the same workers and the same schedules. Latency counts from
the intended send time, in a generator of its own process. Last line of stdout: one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.schedule import SENTENCES, Shot, decision, from_trace, poisson, to_json
from benchmarks.servers import ROOT, Server, balancer, last_line, workers

POLICIES = ("weighted", "linear", "least_loaded", "round_robin", "random")
COMPARED_WORKERS = 3  # under every policy
SLOW_SHARE, SLOW_PERIOD_S = 0.25, 0.04
LOAD = 0.6  # of what a closed loop reaches
LOAD_OF_ONE = 0.8  # of what one worker reaches: the same offer to 1, 2 and 4
CALLERS = 16
SHORT_TEXT, LONG_TEXT = 10, 200
MOST_REQUESTS = 100_000
Outcome = dict[str, Any]  # as the generator writes it


@dataclass(frozen=True)
class Size:
    """How long everything takes."""

    seconds: float  # of one open-loop round
    rounds: int
    requests: int  # of a closed loop


FULL, SHORT = Size(15.0, 3, 600), Size(3.0, 1, 60)


@dataclass(frozen=True)
class Heard:
    """What a generator tells: outcomes by kind, and how long all of it took."""

    outcomes: dict[str, list[Outcome]]
    elapsed_s: float

    @property
    def per_second(self) -> float:
        return sum(map(len, self.outcomes.values())) / self.elapsed_s


async def generate(url: str, shots: Sequence[Shot], *, closed: int | None = None) -> Heard:
    """`shots` from a process of its own."""
    more = ("--closed", str(closed)) if closed else ()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.generator", url, *more),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    told = json.loads((await process.communicate(to_json(shots).encode()))[0])
    outcomes: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in told["outcomes"]:
        outcomes[outcome["kind"]].append(outcome)
    return Heard(dict(outcomes), told["elapsed_s"])


def summary(outcomes: Sequence[Outcome]) -> dict[str, object]:
    """Percentiles of those that were answered, and the share of those that were not."""
    times = sorted(outcome["ms"] for outcome in outcomes if outcome["status"] == 200)
    cut = statistics.quantiles(times, n=100) if len(times) > 1 else [float("nan")] * 99
    rejected = sum(outcome["status"] == 503 for outcome in outcomes)
    failed = len(outcomes) - len(times) - rejected
    return {
        **{f"p{share}_ms": round(cut[share - 1], 1) for share in (50, 95, 99)},
        "rejected": round(rejected / len(outcomes), 4),
        "failed": failed,
        "n": len(outcomes),
    }


@asynccontextmanager
async def slowed(server: Server) -> AsyncIterator[None]:
    """The process runs only a quarter of the time, in slices too short for any time limit."""

    async def pulse() -> None:
        while True:
            os.kill(server.pid, signal.SIGSTOP)
            await asyncio.sleep(SLOW_PERIOD_S * (1 - SLOW_SHARE))
            os.kill(server.pid, signal.SIGCONT)
            await asyncio.sleep(SLOW_PERIOD_S * SLOW_SHARE)

    pulsing = asyncio.create_task(pulse())
    try:
        yield
    finally:
        pulsing.cancel()
        await asyncio.wait({pulsing})
        os.kill(server.pid, signal.SIGCONT)


async def offered_rate(status_dir: str, probe: Sequence[Shot]) -> float:
    """Requests a second that leave the workers some room."""
    async with balancer(COMPARED_WORKERS, status_dir) as server:
        return (await generate(server.url, probe, closed=CALLERS)).per_second * LOAD


async def compare(names: Sequence[str], status_dir: str, schedules: Sequence[Sequence[Shot]]) -> dict[str, object]:
    """Every policy over every schedule, taking turns; percentiles per class over all rounds."""
    heard: dict[str, dict[str, list[Outcome]]] = {name: defaultdict(list) for name in names}
    for number, shots in enumerate(schedules):
        for name in (*names[number % len(names) :], *names[: number % len(names)]):
            async with balancer(COMPARED_WORKERS, status_dir, "--policy", name) as server:
                await generate(server.url, shots[: min(len(shots), 30)], closed=4)  # speeds are learnt
                found = await generate(server.url, shots)
            for kind, outcomes in found.outcomes.items():
                heard[name][kind] += outcomes
    results: dict[str, object] = {}
    for name in names:
        for kind, outcomes in sorted(heard[name].items()):
            results[f"{name} {kind}"] = told = summary(outcomes)
            print(f"{name:13s} {kind:9s} {told}")
    return results


async def policies(arguments: argparse.Namespace, size: Size) -> dict[str, object]:
    """All policies beside a worker that runs a quarter of the time."""
    with tempfile.TemporaryDirectory() as status_dir:
        async with (
            workers(COMPARED_WORKERS, status_dir, "--model", arguments.model, "--threads", "1") as servers,
            slowed(servers[0]),
        ):
            rate = await offered_rate(
                status_dir, from_trace(arguments.data, rate_per_s=size.requests, seconds=1, seed=0)
            )
            print(f"three workers, one at a quarter of its speed; {rate:.1f} requests/s offered")
            rounds = [
                from_trace(arguments.data, rate_per_s=rate, seconds=size.seconds, seed=seed)
                for seed in range(1, size.rounds + 1)
            ]
            return {"offered_per_s": round(rate, 1), **await compare(POLICIES, status_dir, rounds)}


async def lengths(arguments: argparse.Namespace, size: Size) -> dict[str, object]:
    """Half of the decisions on ten characters, half on two hundred, in random order."""

    def bodies(count: int, seed: int) -> list[tuple[str, dict[str, object]]]:
        random = Random(seed)
        chosen = [random.choice((SHORT_TEXT, LONG_TEXT)) for _ in range(count)]
        return [("short" if chars == SHORT_TEXT else "long", decision(random, chars)) for chars in chosen]

    with tempfile.TemporaryDirectory() as status_dir:
        async with workers(COMPARED_WORKERS, status_dir, "--model", arguments.model, "--threads", "1"):
            rate = await offered_rate(status_dir, poisson(bodies(size.requests, 0), rate_per_s=1, seed=0))
            print(f"three workers; {rate:.1f} decisions/s offered")
            rounds = [
                poisson(bodies(round(rate * size.seconds), seed), rate_per_s=rate, seed=seed)
                for seed in range(1, size.rounds + 1)
            ]
            compared = await compare(("weighted", "round_robin"), status_dir, rounds)
            return {"offered_per_s": round(rate, 1), **compared}


async def scaling(arguments: argparse.Namespace, size: Size) -> dict[str, object]:
    """1, 2 and 4 workers behind a balancer; one thread each, so that more of them do not share a core's worth twice."""
    results: dict[str, object] = {}
    random = Random(7)
    texts = (f"{number} {random.choice(SENTENCES)}" for number in range(MOST_REQUESTS))
    bodies: list[tuple[str, dict[str, object]]] = [("decision", {"text": text, "mode": "sentiment"}) for text in texts]
    closed = [Shot(0.0, kind, body) for kind, body in bodies[: size.requests * 2]]
    open_rate = 0.0
    for count in (1, 2, 4):
        with tempfile.TemporaryDirectory() as status_dir:
            async with (
                workers(count, status_dir, "--model", arguments.model, "--threads", "1"),
                balancer(count, status_dir) as server,
            ):
                await generate(server.url, closed[: size.requests // 4], closed=CALLERS)  # warm
                heard = await generate(server.url, closed, closed=CALLERS)
                open_rate = open_rate or heard.per_second * LOAD_OF_ONE
                told = {"per_second": round(heard.per_second, 1), **summary(heard.outcomes["decision"])}
                results[f"{count} workers, closed loop of {CALLERS}"] = told
                shots = poisson(bodies[: round(open_rate * size.seconds)], rate_per_s=open_rate, seed=count)
                heard = await generate(server.url, shots)
                results[f"{count} workers, open loop at {open_rate:.0f}/s"] = summary(heard.outcomes["decision"])
    for name, figures in results.items():
        print(f"{name}: {figures}")
    print("published, eight cores, 0.5B: 12 requests/s with one instance, 41 with four; P95 1800 -> 950 ms")
    return results


PARTS = {"policies": policies, "lengths": lengths, "workers": scaling}


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the Azure trace")
    parser.add_argument("--part", choices=PARTS, action="append", help="[all]")
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--short", action="store_true")
    arguments = parser.parse_args()
    results: dict[str, object] = {}
    for name in arguments.part or PARTS:
        print(f"---- {name}")
        results[name] = await PARTS[name](arguments, SHORT if arguments.short else FULL)
    print(last_line(results))


if __name__ == "__main__":
    asyncio.run(main())
