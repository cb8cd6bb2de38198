"""Start everything with one command: workers, balancer and page. Restarts what dies, ends everything on Ctrl-C.

qwen-aio cluster --workers 3        the page on http://127.0.0.1:7860, dashboard and /v1 on http://127.0.0.1:8000
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

from qwen_aio.balancer.workers.admin import AdminFile
from qwen_aio.client import Client
from qwen_aio.cluster.child import Child, Process, Tell, spawn
from qwen_aio.cluster.forkserver_client import ForkServerClient
from qwen_aio.cluster.lifeline import Lifeline
from qwen_aio.cluster.plan import WORKER_HOST, ClusterPlan, Commands, plan_cluster
from qwen_aio.cluster.supervisor import Supervisor
from qwen_aio.config import Settings, check_exposure, prompts_dir, status_dir
from qwen_aio.errors import ServerUnreachable
from qwen_aio.machine.memory import available_memory
from qwen_aio.serving.server import bind, caught_signals
from qwen_aio.startup.environment import stated_threads
from qwen_aio.startup.flags import BALANCING, CLUSTER, add_settings_flags, settings_from
from qwen_aio.startup.listening import url_of
from qwen_aio.tasks.loader import load_tasks
from qwen_aio.worker.loading import choose_model, prepare_process, told_model
from qwen_aio.worker.memory_need import MemoryNeed, need_of, told_memory

OWN = ("workers", "port")  # settings that mean something else, or something narrower, to a cluster
FOREIGN = ("id",)
HEARD_OF = {"up", "demoted", "drain", "maint"}  # what a balancer says of a worker that it knows to be there

Record = Mapping[str, Any]  # what /health shows
Judge = Callable[[Record], bool]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `qwen-aio cluster` understands."""
    parser.add_argument("--workers", default=argparse.SUPPRESS, metavar="N", help="how many [the cores, at most 3]")
    parser.add_argument("--port", default=argparse.SUPPRESS, help="port of the page [7860]")
    first = (*CLUSTER, *(name for name in BALANCING if name not in OWN))
    others = (name for name in Settings.model_fields if name not in (*first, *OWN, *FOREIGN))
    add_settings_flags(parser, *first, *others)


def main(arguments: argparse.Namespace) -> int:
    """Run everything until a signal; the exit status. Raises SetupError for what an operator must mend."""
    settings = settings_from(arguments)
    check_exposure(settings)
    plan = plan_cluster(settings.model_copy(update={"threads": stated_threads(settings)}))
    prepare_process(plan.workers[0].threads)  # of which a worker need not be told again
    for host, port, flag in plan.addresses:
        bind(host, port, flag=flag).close()
    with AdminFile(status_dir(settings)).owned():
        pass  # its balancer will own it: whether another one does is told before anything is started
    load_tasks(prompts_dir(settings))
    model = choose_model(settings)
    need = need_of(settings, model, num_workers=len(plan.workers), shares_weights=plan.shares_weights)
    _say(f"{told_model(model)}; {plan}")
    _say(told_memory(need, available_memory()))
    return asyncio.run(_run(plan, Commands(plan, arguments), need))


async def _run(plan: ClusterPlan, commands: Commands, need: MemoryNeed) -> int:
    lifeline = Lifeline()
    supervisor = Supervisor(
        _stages(plan, commands, lifeline),
        say=_say,
        hear=_hear,
        told_memory=lambda: f"the cluster needs {need}, {available_memory()}",
        announce=f"the page: {plan.page_url}   dashboard and /v1: {plan.balancer_url}   Ctrl-C ends everything",
    )
    with caught_signals() as signals:
        return await supervisor.run(signals)


def _stages(plan: ClusterPlan, commands: Commands, lifeline: Lifeline) -> list[list[Child]]:
    """Everybody, in the order in which they are ended: nobody loses whom they still need."""

    def child(name: str, start: Callable[[Tell], Awaitable[Process]], url: str, is_ready: Judge = _is_ready) -> Child:
        return Child(name, start, partial(_looks_ready, url, is_ready))

    def spawned(command: list[str]) -> Callable[[Tell], Awaitable[Process]]:
        return partial(spawn, command, lifeline=lifeline)

    page = child("page", spawned(commands.page()), plan.page_url)
    knows_all = partial(_knows, [worker.id for worker in plan.workers])
    balancer = child("balancer", spawned(commands.balancer()), plan.balancer_url, knows_all)
    urls = {worker: url_of(WORKER_HOST, worker.port) for worker in plan.workers}
    if not plan.shares_weights:
        workers = [child(worker.id, spawned(commands.worker(worker)), urls[worker]) for worker in plan.workers]
        return [[page], [balancer], workers]
    link = ForkServerClient(commands.nursery(), lifeline=lifeline)
    workers = [child(worker.id, partial(link.fork, worker), urls[worker]) for worker in plan.workers]
    return [[page], [balancer], workers, [Child("nursery", link.start, link.is_ready)]]


async def _looks_ready(url: str, is_ready: Judge) -> bool:
    try:
        async with Client(url) as client:
            return is_ready(await client.health())
    except ServerUnreachable:
        return False


def _is_ready(health: Record) -> bool:
    return bool(health["state"] == "ready")


def _knows(ids: Sequence[str], health: Record) -> bool:
    """Whether a balancer has heard of everybody: also somebody whom a person keeps offline is there."""
    states = health.get("workers", {})
    return all(states.get(worker) in HEARD_OF for worker in ids)


def _say(line: str) -> None:
    """What the cluster itself has to tell."""
    print(line, flush=True)


def _hear(line: str) -> None:
    """What its children say."""
    print(line, file=sys.stderr, flush=True)
