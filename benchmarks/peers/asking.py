"""Callers of one server, each asking again as soon as it has its answer. The clock is theirs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from benchmarks.peers.process import LONGEST_S, Process, SideFailed, started
from benchmarks.peers.servers import Api, Ask
from benchmarks.servers import free_port

LOOK_S = 0.02


@dataclass(frozen=True)
class Server:
    """One server, ready, and asleep between its turns."""

    api: Api
    url: str
    process: Process

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[aiohttp.ClientSession]:
        """It runs, and can be asked; connections are new, as the old ones may have timed out while it slept."""
        timeout = aiohttp.ClientTimeout(total=LONGEST_S)
        with self.process.turn():
            fresh = aiohttp.TCPConnector(force_close=True)  # a server that stood still closes what it finds idle
            async with aiohttp.ClientSession(self.url, timeout=timeout, trust_env=False, connector=fresh) as session:
                yield session


@asynccontextmanager
async def serving(api: Api, *, log: Path) -> AsyncIterator[Server]:
    """The server of `api`, started and paused. Raises SideFailed."""
    async with AsyncExitStack() as stack:
        port = free_port()
        process = await stack.enter_async_context(started(*api.command, "--port", str(port), log=log, is_read=False))
        server = Server(api, f"http://127.0.0.1:{port}", process)
        async with asyncio.timeout(LONGEST_S), aiohttp.ClientSession(server.url, trust_env=False) as session:
            while not await _is_ready(session, api.ready_path):
                if process.has_ended:
                    raise SideFailed(f"it ended before it was ready; see {log}")
                await asyncio.sleep(LOOK_S)
        process.pause()
        yield server


async def ask(session: aiohttp.ClientSession, what: Ask) -> float:
    """Milliseconds until the last byte."""
    path, body = what
    started_s = time.perf_counter()
    async with session.post(path, json=body) as response:
        response.raise_for_status()
        await response.read()
    return (time.perf_counter() - started_s) * 1000


async def ask_for(session: aiohttp.ClientSession, asks: Iterator[Ask], *, clients: int, seconds: float) -> list[float]:
    """Milliseconds of every answer to `clients` callers who begin nothing after `seconds`."""
    until_s = time.perf_counter() + seconds

    async def caller() -> list[float]:
        times = []
        while time.perf_counter() < until_s:
            times.append(await ask(session, next(asks)))
        return times

    return [ms for part in await asyncio.gather(*(caller() for _ in range(clients))) for ms in part]


async def _is_ready(session: aiohttp.ClientSession, path: str) -> bool:
    try:
        async with session.get(path) as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False
