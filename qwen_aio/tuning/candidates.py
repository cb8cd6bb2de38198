"""Workers on trial: started as a cluster starts them, ready, and gone again before the next ones.

Where workers can be forked, the weights of each precision are loaded once, and stay in memory until the end.
They listen on free ports, report into a folder of their own, and end with this process, however that one dies.
Lives on the event loop of `tune`.
"""

from __future__ import annotations

import asyncio
from argparse import Namespace
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Coroutine
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from qwen_aio.client import Client
from qwen_aio.cluster.child import Process, spawn
from qwen_aio.cluster.forkserver_client import ForkServerClient
from qwen_aio.cluster.lifeline import Lifeline
from qwen_aio.cluster.plan import WORKER_HOST, ClusterPlan, Commands
from qwen_aio.cluster.protocol import WorkerSpec
from qwen_aio.errors import ServerUnreachable, SetupError
from qwen_aio.serving.disconnect import cancel
from qwen_aio.serving.server import bind
from qwen_aio.startup.listening import url_of
from qwen_aio.tuning.halving import Candidate

LOOK_S = 0.05
LAST_LINES = 12
MAX_FAILURES = 2  # of a precision that never came to work; one may be an accident

T = TypeVar("T")


class CandidateWorkers:
    """Starts and ends workers. Leave it as a context manager, and all are gone."""

    def __init__(self, typed: Namespace, *, folder: Path, forks: bool) -> None:
        """`typed` is handed on to workers as a cluster would; `folder` is for their status.

        `forks`: they share weights; or else each loads its own.
        """
        self._typed = typed
        self._folder = folder
        self._forks = forks
        self._lifeline = Lifeline()
        self._lines: deque[str] = deque(maxlen=LAST_LINES)  # the last that any of them said
        self._nurseries: dict[str, _Nursery] = {}  # by precision
        self._sound: set[str] = set()  # precisions whose golden cases held
        self._failures: defaultdict[str, list[str]] = defaultdict(list)  # of the other precisions, and why

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for precision in list(self._nurseries):
            await self._end_nursery(precision)

    @asynccontextmanager
    async def workers(self, candidate: Candidate) -> AsyncIterator[list[str]]:
        """The addresses of the candidate's workers, all ready. Raises SetupError with the last words of one that died.

        Golden cases are asked by the first worker of each precision alone: the others answer the same.
        """
        failures = self._failures[candidate.precision]
        if len(failures) >= MAX_FAILURES:
            raise SetupError(failures[-1])
        self._lines.clear()
        processes: list[Process] = []
        urls = []
        try:
            for wanted in self._wanted(candidate):
                processes.append(await self._start(wanted, candidate.precision))
                urls.append(url_of(WORKER_HOST, wanted.port))
            for process, url in zip(processes, urls, strict=True):
                await self._or_end_of(process, _until_ready(url))
            self._sound.add(candidate.precision)
            yield urls
        except SetupError as exc:
            if candidate.precision not in self._sound:
                failures.append(exc.message)
            await self._end_nursery(candidate.precision)  # whatever it suffers from, the next one is sound
            raise
        finally:
            await _end(processes)

    def _wanted(self, candidate: Candidate) -> list[WorkerSpec]:
        workers = []
        for number, port in enumerate(_free_ports(candidate.workers), start=1):
            changes: tuple[tuple[str, str | int], ...] = (("max_batch_tokens", candidate.max_batch_tokens),)
            if number > 1 or candidate.precision in self._sound:
                changes += (("golden", "off"),)
            workers.append(WorkerSpec(f"tune-{number}", port, candidate.threads, changes))
        return workers

    async def _start(self, wanted: WorkerSpec, precision: str) -> Process:
        commands = self._commands(precision)
        try:
            if self._forks:
                nursery = await self._nursery_of(precision, commands)
                return await self._or_end_of(nursery.process, nursery.link.fork(wanted, self._lines.append))
            flags = [part for name, value in wanted.changes for part in (f"--{name.replace('_', '-')}", str(value))]
            return await spawn([*commands.worker(wanted), *flags], self._lines.append, lifeline=self._lifeline)
        except OSError as exc:
            raise SetupError(f"a worker could not be started: {exc}") from exc

    async def _nursery_of(self, precision: str, commands: Commands) -> _Nursery:
        if precision not in self._nurseries:
            link = ForkServerClient(commands.nursery(), lifeline=self._lifeline)
            self._nurseries[precision] = _Nursery(link, await link.start(self._lines.append))
        return self._nurseries[precision]

    async def _end_nursery(self, precision: str) -> None:
        if nursery := self._nurseries.pop(precision, None):
            await _end([nursery.process])

    def _commands(self, precision: str) -> Commands:
        nobody = ClusterPlan(host=WORKER_HOST, page_port=0, balancer_port=0, workers=(), shares_weights=self._forks)
        own = {"precision": precision, "status_dir": self._folder}
        return Commands(nobody, Namespace(**(vars(self._typed) | own)))

    async def _or_end_of(self, process: Process, work: Coroutine[Any, Any, T]) -> T:
        """The outcome of `work`; SetupError if the process ends before."""
        working, ending = asyncio.ensure_future(work), asyncio.ensure_future(process.ended())
        try:
            await asyncio.wait({working, ending}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise SetupError(self._lines[-1] if self._lines else "a worker ended without a word")
            return working.result()
        finally:
            await cancel(working)
            await cancel(ending)


@dataclass(frozen=True)
class _Nursery:
    """One with weights in memory, or soon."""

    link: ForkServerClient
    process: Process


async def _until_ready(url: str) -> None:
    async with Client(url) as client:
        while not await _is_ready(client):  # noqa: ASYNC110  another process
            await asyncio.sleep(LOOK_S)


async def _is_ready(client: Client) -> bool:
    try:
        return bool((await client.health())["state"] == "ready")
    except ServerUnreachable:
        return False


async def _end(processes: list[Process]) -> None:
    """At once: nobody waits for what they do."""
    for process in processes:
        process.kill()
    for process in processes:
        await process.ended()


def _free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago."""
    with ExitStack() as stack:
        socks = [stack.enter_context(bind(WORKER_HOST, 0)) for _ in range(count)]
        return [sock.getsockname()[1] for sock in socks]
