"""Start everything with one command: workers, balancer and page.

Restarts what fails, ends everything on Ctrl-C.

qwen-aio cluster --workers 3    page on http://127.0.0.1:7860, dashboard and /v1 on port 8000
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from argparse import Namespace
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from qwen_aio.balancer.workers.admin import AdminFile
from qwen_aio.client.async_client import AsyncClient
from qwen_aio.cluster.child import Child, OnLine, Process, spawn
from qwen_aio.cluster.forkserver_client import ForkServerClient
from qwen_aio.cluster.lifeline import Lifeline
from qwen_aio.cluster.plan import WORKER_HOST, ClusterPlan, forkserver_command, plan_cluster, worker_command
from qwen_aio.cluster.supervisor import Supervisor
from qwen_aio.config import Settings, prompts_dir, settings_of, status_dir
from qwen_aio.errors import InvalidSettings, KeyRefused, ServerUnreachable
from qwen_aio.machine.memory import available_memory
from qwen_aio.serving.transport.server import bind, caught_signals
from qwen_aio.startup.egress import egress_guard
from qwen_aio.startup.environment import stated_threads
from qwen_aio.startup.exposure import check_exposure, service_key
from qwen_aio.startup.flags import add_settings_flags, settings_from
from qwen_aio.startup.listening import url_of
from qwen_aio.startup.messages import say
from qwen_aio.startup.service_manager import ServiceManager
from qwen_aio.startup.tls import TlsTo, tls_to
from qwen_aio.tasks.loader import load_tasks
from qwen_aio.worker.loading import choose_model, describe_model, engine_of, prepare_process
from qwen_aio.worker.memory_need import MemoryNeed, memory_message, need_of, sized

ELSEWHERE = ("workers", "port", "id")  # settings that mean something else, or nothing, to a cluster
ClientOf = Callable[[str], AsyncClient]
REACHED = {"up", "demoted", "drain", "maint"}  # a worker's states once a balancer has reached it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workers", default=argparse.SUPPRESS, metavar="N", help="how many [the cores, at most 3]")
    parser.add_argument("--port", default=argparse.SUPPRESS, help="port of the page [7860]")
    first = settings_of("cluster")
    add_settings_flags(parser, *first, *(name for name in Settings.model_fields if name not in (*first, *ELSEWHERE)))


def main(arguments: Namespace) -> int:
    """Run everything until a signal; the exit status.

    Raises SetupError for what an operator must mend.
    """
    settings = settings_from(arguments)
    check_exposure(settings)
    plan = plan_cluster(settings.model_copy(update={"threads": stated_threads(settings)}))
    egress_guard(settings, plan.page_url, plan.balancer_url)
    prepare_process(plan.workers[0].threads)  # a worker that finds them in its environment says nothing of them
    for host, port, flag in plan.addresses:
        bind(host, port, flag=flag).close()
    with AdminFile(status_dir(settings)).owned():
        pass  # the balancer will own it: if another one does, this raises before anything is started
    load_tasks(prompts_dir(settings))
    model = choose_model(settings)
    plan = _without_sharing(plan, settings) if engine_of(settings, model).kind == "transformers" else plan
    settings = sized(settings, model, num_workers=len(plan.workers))
    arguments.kv_mb = settings.kv_mb  # its workers would not know of one another
    need = need_of(settings, model, num_workers=len(plan.workers), shares_weights=plan.shares_weights)
    say(describe_model(model), str(plan))
    say(memory_message(need, available_memory()))
    client_of = partial(_client_of, service_key(settings), tls_to(settings))
    return asyncio.run(_run(plan, arguments, need, client_of))


def _without_sharing(plan: ClusterPlan, settings: Settings) -> ClusterPlan:
    """`plan` for transformers, which starts threads while it loads, so that no process can be forked after."""
    if settings.share_weights == "on":
        raise InvalidSettings("--share-weights on: workers cannot share what transformers loads; leave it off")
    return replace(plan, shares_weights=False)


async def _run(plan: ClusterPlan, arguments: Namespace, need: MemoryNeed, client_of: ClientOf) -> int:
    supervisor = Supervisor(
        _stages(plan, arguments, Lifeline(), client_of),
        report=say,
        on_output=partial(print, file=sys.stderr, flush=True),
        memory=lambda: f"the cluster needs {need}, {available_memory()}",
        on_state=ServiceManager.of_process(os.environ).tell,
        announce=f"the page: {plan.page_url}   dashboard and /v1: {plan.balancer_url}   Ctrl-C ends everything",
    )
    with caught_signals() as signals:
        return await supervisor.run(signals)


def _client_of(key: Callable[[], str], tls_to: TlsTo, url: str) -> AsyncClient:
    return AsyncClient(url, key=key, tls=tls_to(url))


def _stages(plan: ClusterPlan, arguments: Namespace, lifeline: Lifeline, client_of: ClientOf) -> list[list[Child]]:
    """All children, in the order in which they are ended: none loses one that it still needs."""

    def spawned(command: list[str]) -> Callable[[OnLine], Awaitable[Process]]:
        return partial(spawn, command, lifeline=lifeline)

    client = ForkServerClient(forkserver_command(arguments), lifeline=lifeline)
    reaches_all = partial(_has_reached, client_of(plan.balancer_url), [worker.id for worker in plan.workers])
    page = Child("page", spawned(plan.page_command(arguments)), partial(_is_ready, client_of(plan.page_url)))
    balancer = Child("balancer", spawned(plan.balancer_command(arguments)), reaches_all)
    workers = []
    for worker in plan.workers:
        start = partial(client.fork, worker) if plan.shares_weights else spawned(worker_command(arguments, worker))
        workers.append(Child(worker.id, start, partial(_is_ready, client_of(url_of(WORKER_HOST, worker.port)))))
    forkserver = [[Child("forkserver", client.start, client.is_ready)]] if plan.shares_weights else []
    return [[page], [balancer], workers, *forkserver]


async def _is_ready(client: AsyncClient) -> bool:
    return (await _health(client)).get("state") == "ready"


async def _has_reached(client: AsyncClient, workers: Sequence[str]) -> bool:
    """Whether a balancer has reached `workers`, also those that an operator keeps out of service."""
    states = (await _health(client)).get("workers", {})
    return all(states.get(worker) in REACHED for worker in workers)


async def _health(client: AsyncClient) -> Mapping[str, Any]:
    """The body of /health; empty while no server answers, or none that accepts the key."""
    try:
        async with client:
            return await client.health()
    except (ServerUnreachable, KeyRefused):
        return {}
