"""What the engines do without a server around them: prompts, streams, quotations. All on the talking model.

Each measure starts the sides it needs and gives back what each side does in one round. llama.cpp's prompts and
streams are measured by its own tools, which time neither sampling nor text; its quotations by what its server tells.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack

from benchmarks.peers.asking import Server
from benchmarks.peers.bench import Bench, Contestant
from benchmarks.peers.figures import Round
from benchmarks.peers.models import QUANTISATIONS
from benchmarks.peers.process import THREADS, Process
from benchmarks.peers.servers import quoting_server

PREFILLS = (128, 512)
WARM_UP, WARM_UP_SEED = 16, 500_000  # tokens before each turn; llama-bench has a warm-up of its own
STREAMS = 8
PROMPT, NEW = 64, 48  # tokens of a decoding stream
BEYOND = 8  # tokens that an answer could run on, if it did not end where it must


async def prefill(bench: Bench, stack: AsyncExitStack) -> Mapping[str, Contestant]:
    """Tokens a second of a prompt that nobody has seen, until its first token."""
    drivers = await bench.drivers(stack, "prefill")
    found = {side: _prefill(bench, driver) for side, driver in drivers.items()}
    return found | {side: _llama_prefill(bench, side) for side in bench.chosen(*QUANTISATIONS)}


async def decode(bench: Bench, stack: AsyncExitStack) -> Mapping[str, Contestant]:
    """Tokens a second of greedy streams, while all of them run."""
    drivers = await bench.drivers(stack, "decode")
    found = {side: _decode(bench, driver) for side, driver in drivers.items()}
    return found | {side: _llama_decode(bench, side) for side in bench.chosen(*QUANTISATIONS)}


async def quoting(bench: Bench, stack: AsyncExitStack) -> Mapping[str, Contestant]:
    """One stream that quotes its prompt; everybody with what he has for it, and the peers without as well."""
    modes = ("plain", "lookup")
    drivers = await bench.drivers(stack, "quoting", modes=modes)
    found = {side: _quoting(bench, driver) for side, driver in drivers.items()}
    for side in bench.chosen(*QUANTISATIONS):
        model = bench.models.talking.gguf(QUANTISATIONS[side])
        for mode in modes:
            api = quoting_server(bench.peers, model, bench.texts, has_lookup=mode == "lookup")
            found[f"{side} {mode}"] = _llama_quoting(
                bench, await bench.serving(stack, "quoting", f"{side} {mode}", api)
            )
    return found


def _prefill(bench: Bench, driver: Process) -> Contestant:
    async def one_round(number: int) -> Round:
        found = {}
        with driver.turn():
            await _warm_up(bench, driver, number)
            for count in PREFILLS:
                prompt = bench.words.fresh(count, seed=1000 * number + count)
                found[f"{count} tokens/s"] = count / (await driver.ask("prefill", prompt=prompt))["seconds"]
        return found

    return one_round


def _llama_prefill(bench: Bench, side: str) -> Contestant:
    async def one_round(_number: int) -> Round:
        sizes = ("-p", ",".join(map(str, PREFILLS)), "-n", "0", "-r", "1", "-fa", "1", "-o", "json")
        runs = json.loads(await bench.llama_tool("llama-bench", side, "-t", str(THREADS), *sizes))
        return {f"{run['n_prompt']} tokens/s": run["avg_ts"] for run in runs}

    return one_round


def _decode(bench: Bench, driver: Process) -> Contestant:
    async def one_round(number: int) -> Round:
        found = {}
        with driver.turn():
            await _warm_up(bench, driver, number)
            for streams in (1, STREAMS):
                prompts = [bench.words.fresh(PROMPT, seed=1000 * number + stream) for stream in range(streams)]
                told = await driver.ask("decode", prompts=prompts, new=NEW)
                found[_streams(streams)] = told["tokens"] / told["seconds"]
        return found

    return one_round


def _llama_decode(bench: Bench, side: str) -> Contestant:
    async def one_round(_number: int) -> Round:
        sizes = ("-npp", str(PROMPT), "-ntg", str(NEW), "-npl", f"1,{STREAMS}", "-c", "2048", "-fa", "on")
        threads = ("-t", str(THREADS), "-tb", str(THREADS), "--output-format", "jsonl")
        lines = (await bench.llama_tool("llama-batched-bench", side, *threads, *sizes)).splitlines()
        runs = [json.loads(line) for line in lines if line.startswith("{")]
        return {_streams(run["pl"]): run["speed_tg"] for run in runs}

    return one_round


def _quoting(bench: Bench, driver: Process) -> Contestant:
    answer = bench.words.quoting_answer

    async def one_round(number: int) -> Round:
        with driver.turn():
            await _warm_up(bench, driver, number)
            told = await driver.ask("decode", prompts=[bench.words.quoting_prompt], new=len(answer) + BEYOND)
        return _quoted(told["ids"], answer, per_s=told["tokens"] / told["seconds"], per_step=told["tokens_per_step"])

    return one_round


def _llama_quoting(bench: Bench, server: Server) -> Contestant:
    answer = bench.words.quoting_answer
    read = {"n_predict": len(answer) + BEYOND, "temperature": 0, "cache_prompt": False, "return_tokens": True}
    body = {"prompt": bench.words.text(bench.words.quoting_prompt), **read}

    async def one_round(_number: int) -> Round:
        async with server.turn() as session, session.post("/completion", json=body) as response:
            told = await response.json()
        timings = told["timings"]
        count, accepted = timings["predicted_n"], timings.get("draft_n_accepted", 0)
        per_step = count / (count - accepted)
        return _quoted(told["tokens"], answer, per_s=timings["predicted_per_second"], per_step=per_step)

    return one_round


def _quoted(said: Sequence[int], answer: Sequence[int], *, per_s: float, per_step: float) -> Round:
    right = sum(one == other for one, other in zip(said, answer, strict=False)) / len(answer)
    return {"tokens/s": per_s, "tokens a step": per_step, "as laid down": right}


async def _warm_up(bench: Bench, driver: Process, number: int) -> None:
    await driver.ask("prefill", prompt=bench.words.fresh(WARM_UP, seed=WARM_UP_SEED + number))


def _streams(count: int) -> str:
    return f"{count} streams, tokens/s" if count > 1 else "1 stream, tokens/s"
