"""Who answers a command: a model loaded in this process, or a server elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Protocol

from qwen_aio.bulk.asking import Asked
from qwen_aio.config import Settings, prompts_dir
from qwen_aio.core import ModelIdentity, Request, Service, Task
from qwen_aio.startup.messages import say

MODEL_SETTINGS = (
    *("model", "engine", "precision", "threads", "prompts_dir", "max_context", "kv_mb", "golden"),
    *("offline",),
)
SERVER_SETTINGS = ("tls_ca",)
URL_HELP = "ask the server at this address, with the key in QWEN_AIO_KEY, instead of loading a model here"


class AskedService(Asked, Service, Protocol):
    """What answers whole, or as a stream."""


@asynccontextmanager
async def service_at(url: str, settings: Settings) -> AsyncIterator[AskedService]:
    """The server at `url`."""
    from qwen_aio.client.async_client import AsyncClient
    from qwen_aio.startup.egress import egress_guard
    from qwen_aio.startup.tls import tls_to

    egress_guard(settings, url)
    async with AsyncClient(url, key=os.environ.get("QWEN_AIO_KEY", ""), tls=tls_to(settings)(url)) as client:
        yield client


@asynccontextmanager
async def service_here(
    settings: Settings, *, named: Request, more: Callable[[Mapping[str, Task]], Mapping[str, Task]] = lambda _: {}
) -> AsyncIterator[AskedService]:
    """The model of `settings`, loaded. What `named` names is looked up first: an unknown task costs no loading.

    `more`: further tasks, made of those in prompts/.
    """
    from qwen_aio.routing import choose_route
    from qwen_aio.serving.admission import AdmissionGate
    from qwen_aio.serving.pipeline import Pipeline
    from qwen_aio.startup.egress import egress_guard
    from qwen_aio.startup.environment import stated_threads
    from qwen_aio.tasks.loader import load_tasks
    from qwen_aio.worker.execution.executor import LocalExecutor
    from qwen_aio.worker.loading import choose_model, describe_model, loaded_engine, prepare_process
    from qwen_aio.worker.memory_need import log_memory, sized

    egress_guard(settings)
    threads = prepare_process(stated_threads(settings))
    tasks = load_tasks(prompts_dir(settings))
    tasks |= more(tasks)
    choose_route(named.mode, named.text, tasks)
    model = choose_model(settings)
    settings = sized(settings, model)
    log_memory(settings, model)
    started = time.monotonic()
    async with loaded_engine(settings, tasks, model, threads=threads) as ready:
        seconds = time.monotonic() - started
        say(describe_model(model), str(ready.precision_record), f"ready after {seconds:.1f} s", file=sys.stderr)
        gate = AdmissionGate()
        identity = ModelIdentity(model.name, ready.sha, model.is_bundled)
        executor = LocalExecutor(
            ready.engine, tasks, model=identity, worker="cli", record=lambda *_: None, count=lambda _: None
        )
        gate.open(Pipeline(executor))
        yield gate
