"""The workers of one candidate, started as in a cluster, and gone before the next ones start.

Where workers can be forked, the weights of each precision are loaded once and stay in memory until
the end. Workers listen on free ports, report into a folder of their own, and end with this process,
however it ends. Lives on the event loop of `tune`.
"""

from __future__ import annotations

import asyncio
from argparse import Namespace
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from qwen_aio.client.async_client import AsyncClient
from qwen_aio.cluster.child import Process, spawn
from qwen_aio.cluster.forkserver_client import ForkServerClient
from qwen_aio.cluster.lifeline import Lifeline
from qwen_aio.cluster.plan import WORKER_HOST, forkserver_command, worker_command
from qwen_aio.cluster.protocol import WorkerSpec
from qwen_aio.errors import ServerUnreachable, SetupError
from qwen_aio.serving.interruption import result_unless
from qwen_aio.serving.transport.server import bind
from qwen_aio.startup.listening import url_of
from qwen_aio.tuning.halving import Candidate

LOOK_S = 0.05
MAX_FAILURES = 2  # of a precision that never worked; one may be an accident

T = TypeVar("T")


class CandidateWorkers:
    """Starts and ends workers, as a context manager: aclosing(CandidateWorkers(...))."""

    def __init__(self, arguments: Namespace, *, folder: Path, forks: bool) -> None:
        """Workers get the settings in `arguments`, as in a cluster; `folder` is for their status.

        With `forks` they share weights; otherwise each loads its own.
        """
        self._arguments = arguments
        self._folder = folder
        self._forks = forks
        self._lifeline = Lifeline()
        self._last_line: deque[str] = deque(maxlen=1)  # of all workers' output
        self._forkservers: dict[str, tuple[ForkServerClient, Process]] = {}  # by precision
        self._sound: set[str] = set()  # precisions whose golden cases hold
        self._failures: defaultdict[str, list[str]] = defaultdict(list)  # of the other precisions, and why

    async def aclose(self) -> None:
        for precision in list(self._forkservers):
            await self._end_forkserver(precision)

    @asynccontextmanager
    async def workers(self, candidate: Candidate) -> AsyncIterator[list[str]]:
        """The URLs of the candidate's workers, all ready.

        Raises SetupError with the last line of one that failed. The first worker of each precision
        alone runs the golden cases: the others answer the same.
        """
        failures = self._failures[candidate.precision]
        if len(failures) >= MAX_FAILURES:
            raise SetupError(failures[-1])
        self._last_line.append("a worker ended and printed nothing")
        processes: list[Process] = []
        try:
            yield await self._start_all(candidate, processes)
        except SetupError as exc:
            if candidate.precision not in self._sound:
                failures.append(exc.message)
            await self._end_forkserver(candidate.precision)  # whatever is wrong with it, the next one is sound
            raise
        finally:
            await _end(processes)

    async def _start_all(self, candidate: Candidate, processes: list[Process]) -> list[str]:
        """Fills `processes` with what is to be ended, also when this fails."""
        urls = []
        for spec in self._specs(candidate):
            processes.append(await self._start(spec, candidate.precision))
            urls.append(url_of(WORKER_HOST, spec.port))
        for process, url in zip(processes, urls, strict=True):
            await self._unless_ended(process, _until_ready(url))
        self._sound.add(candidate.precision)
        return urls

    def _specs(self, candidate: Candidate) -> Iterator[WorkerSpec]:
        for number, port in enumerate(_free_ports(candidate.workers), start=1):
            changes: dict[str, str | int] = {"max_batch_tokens": candidate.max_batch_tokens}
            if number > 1 or candidate.precision in self._sound:
                changes["golden"] = "off"
            yield WorkerSpec(f"tune-{number}", port, candidate.threads, changes)

    async def _start(self, spec: WorkerSpec, precision: str) -> Process:
        own = {"precision": precision, "status_dir": self._folder, "keys_file": self._folder / "no-keys.json"}
        arguments = Namespace(**{**vars(self._arguments), **own})
        try:
            if self._forks:
                client, server = await self._forkserver_of(precision, forkserver_command(arguments))
                return await self._unless_ended(server, client.fork(spec, self._last_line.append))
            return await spawn(worker_command(arguments, spec), self._last_line.append, lifeline=self._lifeline)
        except OSError as exc:
            raise SetupError(f"a worker could not be started: {exc}") from exc

    async def _forkserver_of(self, precision: str, command: list[str]) -> tuple[ForkServerClient, Process]:
        if precision not in self._forkservers:
            client = ForkServerClient(command, lifeline=self._lifeline)
            self._forkservers[precision] = client, await client.start(self._last_line.append)
        return self._forkservers[precision]

    async def _end_forkserver(self, precision: str) -> None:
        if precision in self._forkservers:
            _, server = self._forkservers.pop(precision)
            await _end([server])

    async def _unless_ended(self, process: Process, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`; SetupError if the process ends first."""
        return await result_unless(process.ended(), work, error=lambda _: SetupError(self._last_line[0]))


async def _until_ready(url: str) -> None:
    state = ""
    async with AsyncClient(url) as client:
        while state != "ready":
            await asyncio.sleep(LOOK_S)
            with suppress(ServerUnreachable):
                state = (await client.health())["state"]


async def _end(processes: list[Process]) -> None:
    """At once: no client waits for their answers."""
    for process in processes:
        process.kill()
    for process in processes:
        await process.ended()


def _free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago."""
    with ExitStack() as stack:
        socks = [stack.enter_context(bind(WORKER_HOST, 0)) for _ in range(count)]
        return [sock.getsockname()[1] for sock in socks]
