"""What 1, 2 and 4 workers cost in memory, sharing one copy of the weights and each with its own. Linux only.

    python -m benchmarks.memory [--model DIR] [--short]

Starts workers as `qwen-aio cluster` does, asks each for a decision and an answer, and reads /proc/<pid>/smaps_rollup of
them and of the process they were forked from:

    RSS       pages in memory, whoever else has them too
    PSS       the same, but a page that n processes share counts 1/n: the sum over all is what they really take
    private   pages that nobody else has

Last line of stdout: one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import tempfile
from argparse import Namespace
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # it ships no types

from benchmarks.servers import READY_WITHIN_S, free_port, last_line
from qwen_aio.client.async_client import AsyncClient
from qwen_aio.cluster.child import Process, spawn
from qwen_aio.cluster.forkserver_client import ForkServerClient
from qwen_aio.cluster.lifeline import Lifeline
from qwen_aio.cluster.plan import WORKER_HOST, ClusterPlan, forkserver_command, plan_cluster, worker_command
from qwen_aio.config import load_settings
from qwen_aio.core import Request, SamplingWish
from qwen_aio.errors import NotReady, ServerUnreachable
from qwen_aio.status.file import read_statuses

LOOK_S = 0.2
TEXT = "刚收到货,包装完好,但颜色和图片不太一样,有点小失望"
NUMBERS, SHORT_NUMBERS = (1, 2, 4), (1, 2)


@dataclass(frozen=True)
class Memory:
    """MB of 2**20 bytes."""

    rss: float
    pss: float
    private: float


@dataclass(frozen=True)
class Row:
    """One cluster."""

    workers: int
    shares_weights: bool
    total: float  # PSS of all workers and the fork server
    server: Memory | None
    each: tuple[Memory, ...]


def memory_of(pid: int) -> Memory:
    """What /proc says of one process."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text()
    mb = {name: int(kb) / 1024 for name, kb in re.findall(r"^(\w+):\s+(\d+) kB", lines, re.MULTILINE)}
    return Memory(round(mb["Rss"]), round(mb["Pss"]), round(mb["Private_Clean"] + mb["Private_Dirty"]))


async def measure(num_workers: int, *, shares_weights: bool, model: str) -> Row:
    """Start, use, look, end."""
    with tempfile.TemporaryDirectory() as status_dir:
        typed = Namespace(model=model, status_dir=status_dir, golden="off")
        share = "on" if shares_weights else "off"
        plan = plan_cluster(
            load_settings({"workers": str(num_workers), "worker_port": free_port(), "share_weights": share})
        )
        async with running(plan, typed) as log:
            for worker in plan.workers:
                await use(f"http://{WORKER_HOST}:{worker.port}", log)
            statuses = read_statuses(Path(status_dir) / "status.json").values()
            server = memory_of(psutil.Process(next(iter(statuses)).pid).ppid()) if shares_weights else None
            each = tuple(memory_of(status.pid) for status in statuses)
    total = sum(memory.pss for memory in (*each, *([server] if server else [])))
    return Row(num_workers, shares_weights, total, server, each)


@asynccontextmanager
async def running(plan: ClusterPlan, arguments: Namespace) -> AsyncIterator[list[str]]:
    """All workers of `plan`, started; their log."""
    lifeline, log, processes = Lifeline(), list[str](), list[Process]()
    try:
        if plan.shares_weights:
            client = ForkServerClient(forkserver_command(arguments), lifeline=lifeline)
            processes.append(await client.start(log.append))
            processes += [await client.fork(worker, log.append) for worker in plan.workers]
        else:
            for worker in plan.workers:
                processes.append(await spawn(worker_command(arguments, worker), log.append, lifeline=lifeline))
        yield log
    finally:
        for process in reversed(processes):
            process.terminate()
            await process.ended()


async def use(url: str, log: list[str]) -> None:
    """Wait until it is ready, then touch what a worker touches when it works. Raises RuntimeError with its log."""
    wish = SamplingWish(max_tokens=32, seed=1)
    async with AsyncClient(url) as client:
        for _ in range(round(READY_WITHIN_S / LOOK_S)):
            try:
                await client.run(Request(TEXT, mode="sentiment", reply=True, sampling=wish, request_id="memory"))
                return
            except (ServerUnreachable, NotReady):
                await asyncio.sleep(LOOK_S)
    raise RuntimeError(f"{url} is not ready; its log:\n" + "\n".join(log))


def told(row: Row) -> str:
    """One line of the table."""
    rss, pss, private = (max(getattr(memory, name) for memory in row.each) for name in ("rss", "pss", "private"))
    server = f"{row.server.pss:.0f}" if row.server else "-"
    weights = "shared" if row.shares_weights else "own"
    return f"{row.workers:7d}  {weights:7s} {rss:5.0f} {pss:5.0f} {private:8.0f} {server:>8s} {row.total:6.0f}"


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="bundled", help="model folder [bundled]")
    parser.add_argument("--short", action="store_true")
    arguments = parser.parse_args()
    numbers = SHORT_NUMBERS if arguments.short else NUMBERS
    print("MB of the largest worker; server: PSS of the fork server; all: workers and fork server together")
    print("workers  weights   RSS   PSS  private   server    all")
    rows = []
    for shares_weights in (True, False):
        for number in numbers:
            rows.append(await measure(number, shares_weights=shares_weights, model=arguments.model))
            print(told(rows[-1]), flush=True)
    print(last_line({"model": Path(arguments.model).name, "rows": [asdict(row) for row in rows]}))


if __name__ == "__main__":
    asyncio.run(main())
