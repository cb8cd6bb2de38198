"""Ask once from the command line: the merged line and the time, or the whole result as JSON."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time

from qwen_aio.config import Settings, prompts_dir
from qwen_aio.core import ModelIdentity, Request, SamplingWish
from qwen_aio.result import Result
from qwen_aio.startup.flags import add_settings_flags, settings_from
from qwen_aio.visible import check_visible
from qwen_aio.wire import result_to_json

MODEL_SETTINGS = ("model", "precision", "threads", "prompts_dir", "max_context", "kv_mb", "golden")
SERVER_SETTINGS = ("tls_ca",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("text", help="the text; - reads it from standard input")
    parser.add_argument("--mode", default="auto", help="auto or a task's name [auto]")
    parser.add_argument("--reply", action="store_true", help="decision and answer together")
    parser.add_argument("--max-tokens", type=int, help="longest answer, in tokens")
    parser.add_argument("--seed", type=int, help="makes sampling repeatable")
    parser.add_argument(
        "--url", help="ask the server at this address, with the key in QWEN_AIO_KEY, instead of loading a model here"
    )
    parser.add_argument("--json", action="store_true", help="print the whole result as JSON")
    add_settings_flags(parser, *MODEL_SETTINGS, *SERVER_SETTINGS)


def main(arguments: argparse.Namespace) -> int:
    """Ask and print; the exit status."""
    settings = settings_from(arguments)
    text = sys.stdin.read() if arguments.text == "-" else arguments.text
    check_visible(text, param="text")
    wish = SamplingWish(max_tokens=arguments.max_tokens, seed=arguments.seed)
    request = Request(text, mode=arguments.mode, reply=arguments.reply, sampling=wish, request_id="cli")
    asked = _ask_server(arguments.url, request, settings) if arguments.url else _ask_here(settings, request)
    result = asyncio.run(asked)
    merged = f"{result.merged_line}\n{result.total_ms / 1000:.2f} s ({result.route})"
    print(result_to_json(result) if arguments.json else merged)
    return 0


async def _ask_server(url: str, request: Request, settings: Settings) -> Result:
    from qwen_aio.client.async_client import AsyncClient
    from qwen_aio.startup.tls import tls_to

    async with AsyncClient(url, key=os.environ.get("QWEN_AIO_KEY", ""), tls=tls_to(settings)(url)) as client:
        return await client.run(request)


async def _ask_here(settings: Settings, request: Request) -> Result:
    from qwen_aio.routing import choose_route
    from qwen_aio.serving.admission import AdmissionGate
    from qwen_aio.serving.pipeline import Pipeline
    from qwen_aio.startup.environment import stated_threads
    from qwen_aio.tasks.loader import load_tasks
    from qwen_aio.worker.execution.executor import LocalExecutor
    from qwen_aio.worker.loading import choose_model, describe_model, loaded_engine, prepare_process
    from qwen_aio.worker.memory_need import log_memory, sized

    threads = prepare_process(stated_threads(settings))
    tasks = load_tasks(prompts_dir(settings))
    choose_route(request.mode, request.text, tasks)  # an unknown task is named before a model is loaded
    model = choose_model(settings)
    settings = sized(settings, model)
    log_memory(settings, model)
    started = time.monotonic()
    async with loaded_engine(settings, tasks, model, threads=threads) as ready:
        seconds = time.monotonic() - started
        print(f"{describe_model(model)}; {ready.precision_record}; ready after {seconds:.1f} s", file=sys.stderr)
        gate = AdmissionGate()
        identity = ModelIdentity(model.name, ready.sha, model.is_bundled)
        executor = LocalExecutor(
            ready.engine, tasks, model=identity, worker="cli", record=lambda *_: None, count=lambda _: None
        )
        gate.open(Pipeline(executor))
        return await gate.run(request)
