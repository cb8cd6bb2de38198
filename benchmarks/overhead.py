"""What the balancer adds to a request: a worker whose engine computes nothing, asked directly and through the balancer.

    python -m benchmarks.overhead [--old CHECKOUT] [--short]

All sides take turns, request by request: a decision, and an answer of eight pieces (until the first piece, and until
the end). With --old, the folder of another commit, its worker and balancer take turns with ours; where HAProxy is
installed, one in front of our worker does. Medians and the 99th percentile. Last line of stdout: one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp

from benchmarks.servers import ROOT, balancer, free_port, last_line, serving, until_ready

DECISION: dict[str, object] = {"text": "快递太慢了,差评!", "mode": "sentiment"}
ANSWER: dict[str, object] = {"text": "讲个故事", "mode": "chat", "stream": True}
HAPROXY = """
defaults
    mode http
    option http-no-delay
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend front
    bind 127.0.0.1:{port}
    default_backend workers
backend workers
    server one {server}
"""
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


def told(by_side: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Of each side; what a server in between adds is the difference of its median and the direct one's."""
    figures = {}
    for side, times in by_side.items():
        direct = by_side["old direct" if side.startswith("old ") else "direct"]
        figures[side] = {
            "p50_ms": round(statistics.median(times), 2),
            "p99_ms": round(statistics.quantiles(times, n=100)[98], 2),
            "added_p50_ms": round(statistics.median(times) - statistics.median(direct), 2),
        }
    return figures


@asynccontextmanager
async def haproxy(server: str, folder: str) -> AsyncIterator[str]:
    """The address of an HAProxy in front of the address `server`. Raises FileNotFoundError where none is installed."""
    port = free_port()
    config = Path(folder) / "haproxy.cfg"
    config.write_text(HAPROXY.format(port=port, server=server.removeprefix("http://")), encoding="utf-8")
    process = await asyncio.create_subprocess_exec("haproxy", "-f", str(config), "-db")
    try:
        await until_ready(f"http://127.0.0.1:{port}", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


@asynccontextmanager
async def sides(old: Path | None) -> AsyncIterator[dict[str, str]]:
    """Side -> address. HAProxy stands in front of the worker that is asked directly."""
    async with AsyncExitStack() as stack:
        found = {}
        for name, root in {"": ROOT, "old ": old}.items():
            if root is None:
                continue
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            instant = ("-m", "benchmarks.instant_worker", "--status-dir", folder)
            found[f"{name}direct"] = (await stack.enter_async_context(serving(*instant, root=root))).url
            found[f"{name}through"] = (await stack.enter_async_context(balancer(1, folder, root=root))).url
        if shutil.which("haproxy"):
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            found["haproxy"] = await stack.enter_async_context(haproxy(found["direct"], folder))
        yield found


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", type=Path, help="folder of another commit, whose side takes turns with ours")
    parser.add_argument("--short", action="store_true")
    arguments = parser.parse_args()
    rounds = 50 if arguments.short else 500
    async with AsyncExitStack() as stack, sides(arguments.old and arguments.old.resolve()) as urls:
        sessions = {
            side: await stack.enter_async_context(aiohttp.ClientSession(url, trust_env=False))
            for side, url in urls.items()
        }
        times = await take_turns(sessions, rounds)
        results: dict[str, object] = {what: told(by_side) for what, by_side in times.items()}
        rates = {side: round(await rate(session, rounds * 2)) for side, session in sessions.items()}
        results[f"decisions/s, {CLIENTS} callers"] = rates
    for what, figures in results.items():
        print(f"{what}: {figures}")
    print(last_line(results))


if __name__ == "__main__":
    asyncio.run(main())
