"""The cluster's end of a fork server: starts it, asks it for workers, learns how they ended.

A forked worker is no child of the cluster, so its end shows in its log, which it alone has open;
the fork server adds the exit status. Workers outlive their server: the next server forks only those
that end after it. Lives on the event loop of the cluster.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Sequence
from contextlib import suppress

import psutil  # type: ignore[import-untyped]  # it ships no types

from qwen_aio.cluster.child import OnLine, Process, read_lines, spawn
from qwen_aio.cluster.lifeline import Lifeline
from qwen_aio.cluster.protocol import Ended, ForkMessage, Messages, Started, WeightsLoaded, WorkerSpec, encode

CHUNK = 4096
Fork = tuple[int, asyncio.Future[int | None]]  # the pid, and what gets the exit status


class ForkServerClient:
    """One fork server after another, and the workers that they fork."""

    def __init__(self, command: Sequence[str], *, lifeline: Lifeline) -> None:
        """`command` starts a fork server; the number of its socket is added."""
        self._command = command
        self._lifeline = lifeline
        self._loaded = asyncio.Event()
        self._control: socket.socket | None = None
        self._receiving: asyncio.Task[None] | None = None
        self._forks: dict[str, asyncio.Future[Fork | None]] = {}  # those asked for, by worker id
        self._ends: dict[int, asyncio.Future[int | None]] = {}  # of this server's workers, by pid

    async def start(self, on_line: OnLine) -> Process:
        """Start a fork server; the one before has ended. Raises OSError."""
        if self._receiving is not None:
            await self._receiving
        self._control, theirs = socket.socketpair()
        self._receiving = asyncio.create_task(self._receive(self._control), name="fork server client")
        with theirs:
            command = [*self._command, "--control", str(theirs.fileno())]
            return await spawn(command, on_line, lifeline=self._lifeline, inherited_files=(theirs.fileno(),))

    async def is_ready(self) -> bool:
        """Whether a worker can be forked."""
        return self._loaded.is_set()

    async def fork(self, spec: WorkerSpec, on_line: OnLine) -> Process:
        """A worker of this server, or of the next one that is ready. Raises OSError."""
        while True:
            await self._loaded.wait()
            reading, writing = os.pipe()
            log = asyncio.create_task(_read_log(reading, on_line))  # until no process can write
            try:
                fork = await self._ask(spec, writing)
            finally:
                os.close(writing)
            if fork is not None:
                return _ForkedProcess(*fork, log)

    async def _ask(self, spec: WorkerSpec, log: int) -> Fork | None:
        """None if the server ends before it has forked the worker."""
        assert self._control is not None
        fork: asyncio.Future[Fork | None] = asyncio.get_running_loop().create_future()
        self._forks[spec.id] = fork
        try:
            socket.send_fds(self._control, [encode(spec)], [log])
            return await fork
        except OSError:
            self._loaded.clear()  # no task asks again before the end is noticed
            return None
        finally:
            del self._forks[spec.id]

    async def _receive(self, control: socket.socket) -> None:
        control.setblocking(False)
        messages = Messages()
        with control, suppress(ConnectionError):
            while chunk := await asyncio.get_running_loop().sock_recv(control, CHUNK):
                for message in messages.feed(chunk):
                    self._take(message)
        # It forks no worker any more, and does not say how its workers end.
        self._loaded.clear()
        for fork in self._forks.values():
            if not fork.done():
                fork.set_result(None)
        for end in self._ends.values():
            end.set_result(None)
        self._ends.clear()

    def _take(self, message: ForkMessage) -> None:
        match message:
            case WeightsLoaded():
                self._loaded.set()
            case Started(worker_id, pid):
                end = self._ends[pid] = asyncio.get_running_loop().create_future()
                fork = self._forks.get(worker_id)
                if fork is not None and not fork.done():
                    fork.set_result((pid, end))
            case Ended(pid, status):
                self._ends.pop(pid).set_result(status)


class _ForkedProcess:
    """A Process that is a child of the fork server."""

    def __init__(self, pid: int, end: asyncio.Future[int | None], log: asyncio.Task[None]) -> None:
        self._end = end
        self._log = log
        self._process: psutil.Process | None = None
        with suppress(psutil.NoSuchProcess):
            # It knows when it started: another process that gets this pid later is not signalled.
            self._process = psutil.Process(pid)

    def terminate(self) -> None:
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        if self._process is not None:
            with suppress(psutil.NoSuchProcess):
                self._process.send_signal(number)

    async def ended(self) -> int | None:
        await asyncio.wait({self._log})
        return await asyncio.shield(self._end)


async def _read_log(reading: int, on_line: OnLine) -> None:
    output = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(output), os.fdopen(reading, "rb", 0)
    )
    try:
        await read_lines(output, on_line)
    finally:
        transport.close()
