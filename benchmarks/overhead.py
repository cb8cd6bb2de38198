"""What the balancer adds to a request: a worker whose engine computes nothing, asked directly and through the balancer.

    python -m benchmarks.overhead [--short]

Both sides take turns, request by request, in one process of their own: a decision, and an answer of eight pieces
(until the first piece, and until the end). Medians and the 99th percentile. Last line of stdout: one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections import defaultdict

import aiohttp

from benchmarks.servers import balancer, last_line, serving

DECISION: dict[str, object] = {"text": "快递太慢了,差评!", "mode": "sentiment"}
ANSWER: dict[str, object] = {"text": "讲个故事", "mode": "chat", "stream": True}
CLIENTS = 32
WARM = 20
Times = dict[str, dict[str, list[float]]]


async def whole(session: aiohttp.ClientSession) -> dict[str, float]:
    """Milliseconds of one decision."""
    started = time.perf_counter()
    async with session.post("/v1/run", json=DECISION) as response:
        await response.read()
        assert response.status == 200
    return {"decision": (time.perf_counter() - started) * 1000}


async def streamed(session: aiohttp.ClientSession) -> dict[str, float]:
    """Milliseconds until the first piece of an answer, and until its end."""
    started, first = time.perf_counter(), 0.0
    async with session.post("/v1/run", json=ANSWER) as response:
        async for _ in response.content.iter_any():
            first = first or time.perf_counter()
        assert response.status == 200
    return {"first piece": (first - started) * 1000, "answer": (time.perf_counter() - started) * 1000}


async def rate(session: aiohttp.ClientSession, count: int) -> float:
    """Decisions a second by many callers at once."""
    turns = iter(range(count))

    async def caller() -> None:
        for _ in turns:
            await whole(session)

    started = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(CLIENTS)))
    return count / (time.perf_counter() - started)


async def take_turns(sides: dict[str, aiohttp.ClientSession], rounds: int) -> Times:
    """Milliseconds by what was measured and by side."""
    times: Times = defaultdict(lambda: defaultdict(list))
    for number in range(WARM + rounds):
        for ask in (whole, streamed):
            for side, session in sides.items():
                for what, ms in (await ask(session)).items():
                    if number >= WARM:  # the first ones open connections
                        times[what][side].append(ms)
    return times


def told(direct: list[float], through: list[float]) -> dict[str, float]:
    """Both sides, and the difference of their medians."""
    return {
        "direct_p50_ms": round(statistics.median(direct), 2),
        "through_p50_ms": round(statistics.median(through), 2),
        "added_p50_ms": round(statistics.median(through) - statistics.median(direct), 2),
        "direct_p99_ms": round(statistics.quantiles(direct, n=100)[98], 2),
        "through_p99_ms": round(statistics.quantiles(through, n=100)[98], 2),
        "n": len(direct),
    }


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true")
    rounds = 50 if parser.parse_args().short else 500
    with tempfile.TemporaryDirectory() as folder:
        async with (
            serving("-m", "benchmarks.instant_worker", "--status-dir", folder) as worker,
            balancer(1, folder) as front,
            aiohttp.ClientSession(worker.url, trust_env=False) as direct,
            aiohttp.ClientSession(front.url, trust_env=False) as through,
        ):
            times = await take_turns({"direct": direct, "through": through}, rounds)
            results: dict[str, object] = {what: told(**sides) for what, sides in times.items()}
            rates = {"direct": round(await rate(direct, rounds * 2)), "through": round(await rate(through, rounds * 2))}
            results[f"decisions/s, {CLIENTS} callers"] = rates
    for what, figures in results.items():
        print(f"{what}: {figures}")
    print(last_line(results))


if __name__ == "__main__":
    asyncio.run(main())
