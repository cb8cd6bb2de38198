"""What people see who ask a server over HTTP: decisions, decisions among streams, memory, its start.

Each measure starts the sides it needs and gives back what each side does in one round.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from itertools import cycle

from benchmarks.peers.asking import Server, ask, ask_for
from benchmarks.peers.bench import Bench, Contestant
from benchmarks.peers.figures import Round
from benchmarks.peers.process import THREADS, Process
from benchmarks.peers.servers import Api

CLIENTS, STREAMS = 8, 8
GENERATED = 16  # tokens that the published way writes for a decision


async def decisions(bench: Bench, stack: AsyncExitStack) -> Mapping[str, Contestant]:
    """Whole decisions over HTTP; the published way in process, one at a time."""
    servers = await bench.servers(stack, "decisions", slots=CLIENTS)
    found = {side: _decisions(bench, server) for side, server in servers.items()}
    if bench.chosen("generate"):
        command = (bench.peers / "transformers/bin/python", "-m", "benchmarks.peers.drive_generate")
        driver = await bench.driver(stack, "decisions", "generate", *command, bench.models.plain.hf, str(THREADS))
        found["generate"] = _generate(bench, driver)
    return found


async def busy(bench: Bench, stack: AsyncExitStack) -> Mapping[str, Contestant]:
    """A decision alone, and while eight people read answers; whoever has his asks for the next."""
    servers = await bench.servers(stack, "busy", slots=STREAMS + 1, is_chat=True)
    return {side: _busy(bench, server) for side, server in servers.items()}


async def memory(bench: Bench, stack: AsyncExitStack) -> Mapping[str, Contestant]:
    """What an idle server takes that has answered one decision."""
    servers = await bench.servers(stack, "memory", slots=CLIENTS)
    return {side: _memory(bench, server) for side, server in servers.items()}


async def start(bench: Bench, stack: AsyncExitStack) -> Mapping[str, Contestant]:
    """From the command to the first decision, everything once made of a model being there."""
    apis = await bench.apis(stack, slots=CLIENTS)
    for side, api in apis.items():
        async with AsyncExitStack() as once:
            await bench.serving(once, "start", side, api)
    return {side: _start(bench, side, api) for side, api in apis.items()}


def _start(bench: Bench, side: str, api: Api) -> Contestant:
    asks = bench.decisions(api)

    async def one_round(_number: int) -> Round:
        async with AsyncExitStack() as stack:
            began_s = time.perf_counter()
            server = await bench.serving(stack, "start", side, api)
            ready_s = time.perf_counter()
            async with server.turn() as session:
                await ask(session, next(asks))
            return {"until ready, s": ready_s - began_s, "until the first decision, s": time.perf_counter() - began_s}

    return one_round


def _decisions(bench: Bench, server: Server) -> Contestant:
    asks = bench.decisions(server.api)

    async def one_round(number: int) -> Round:
        async with server.turn() as session:
            warm_up = 1 if number else CLIENTS  # at first every slot must see the fixed part of the prompt
            await asyncio.gather(*(ask(session, next(asks)) for _ in range(warm_up)))
            alone = await ask_for(session, asks, clients=1, seconds=bench.seconds)
            started_s = time.perf_counter()
            many = await ask_for(session, asks, clients=CLIENTS, seconds=bench.seconds)
            elapsed_s = time.perf_counter() - started_s
        return {
            "1 client, p50 ms": statistics.median(alone),
            "1 client, /s": 1000 / statistics.mean(alone),
            "8 clients, /s": len(many) / elapsed_s,
        }

    return one_round


def _generate(bench: Bench, driver: Process) -> Contestant:
    texts = cycle(bench.texts.decisions)

    async def one_round(_number: int) -> Round:
        times: list[float] = []
        until_s = time.perf_counter() + bench.seconds
        with driver.turn():
            while not times or time.perf_counter() < until_s:
                prompt = bench.texts.decision_prompt(next(texts))
                times.append((await driver.ask("decide", prompt=prompt, new=GENERATED))["seconds"])
        per_s = 1 / statistics.mean(times)
        return {"1 client, p50 ms": statistics.median(times) * 1000, "1 client, /s": per_s, "8 clients, /s": per_s}

    return one_round


def _busy(bench: Bench, server: Server) -> Contestant:
    assert server.api.chat is not None
    asks, chats = bench.decisions(server.api), map(server.api.chat, cycle(bench.texts.chats))

    async def one_round(_number: int) -> Round:
        async with server.turn() as session:
            await ask(session, next(asks))
            alone = await ask_for(session, asks, clients=1, seconds=bench.seconds / 2)
            readers = ask_for(session, chats, clients=STREAMS, seconds=bench.seconds * 2)
            reading = asyncio.create_task(readers)
            await asyncio.sleep(bench.seconds / 2)  # until all of them read
            among = await ask_for(session, asks, clients=1, seconds=bench.seconds * 1.4)
            await reading
        quiet, loaded = statistics.median(alone), statistics.median(among)
        return {"alone, p50 ms": quiet, "while 8 stream, p50 ms": loaded, "ratio": loaded / quiet}

    return one_round


def _memory(bench: Bench, server: Server) -> Contestant:
    asks = bench.decisions(server.api)

    async def one_round(_number: int) -> Round:
        async with server.turn() as session:
            await ask(session, next(asks))
        return {
            "PSS, MiB": server.process.pss_mb(),
            "without its block for keys and values": server.process.pss_mb(without_mb=server.api.kv_mb),
        }

    return one_round
