"""The load generator, a process of its own: `python -m benchmarks.generator URL < schedule.json`.

An open loop: every request leaves at its intended time, however late the answers are, and its latency counts from
that time, so that a server which stalls cannot hide those who would have come meanwhile (coordinated omission).
With --closed N the schedule's times are ignored: N callers ask again as soon as they have their answer.
Writes one JSON object: the seconds all of it took, and kind, milliseconds, HTTP status (0: no answer), worker of each.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence

import aiohttp

from benchmarks.schedule import Shot, from_json

LEAD_S = 0.2


async def fire(session: aiohttp.ClientSession, shot: Shot, due: float) -> dict[str, object]:
    """One request; `due` is a time of perf_counter."""
    status, worker = 0, ""
    try:
        async with session.post("/v1/run", json=shot.body) as response:
            status = response.status
            body = await response.json()
            worker = body.get("worker", "")
    except (aiohttp.ClientError, TimeoutError):
        pass
    return {"kind": shot.kind, "ms": (time.perf_counter() - due) * 1000, "status": status, "worker": worker}


async def open_loop(session: aiohttp.ClientSession, shots: Sequence[Shot]) -> list[dict[str, object]]:
    """Every shot at its time."""
    start = time.perf_counter() + LEAD_S
    tasks = []
    for shot in shots:
        due = start + shot.at_s
        await asyncio.sleep(max(due - time.perf_counter(), 0))
        tasks.append(asyncio.create_task(fire(session, shot, due)))
    return list(await asyncio.gather(*tasks))


async def closed_loop(session: aiohttp.ClientSession, shots: Sequence[Shot], clients: int) -> list[dict[str, object]]:
    """Every shot in its turn, by so many callers."""
    turns = iter(shots)

    async def caller() -> list[dict[str, object]]:
        return [await fire(session, shot, time.perf_counter()) for shot in turns]

    return [outcome for part in await asyncio.gather(*(caller() for _ in range(clients))) for outcome in part]


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--closed", type=int, metavar="N")
    arguments = parser.parse_args()
    shots = from_json(sys.stdin.read())
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(arguments.url, connector=connector, timeout=timeout, trust_env=False) as session:
        started = time.perf_counter()
        loop = closed_loop(session, shots, arguments.closed) if arguments.closed else open_loop(session, shots)
        outcomes = await loop
        elapsed_s = time.perf_counter() - started
    print(json.dumps({"elapsed_s": elapsed_s, "outcomes": outcomes}))


if __name__ == "__main__":
    asyncio.run(main())
