"""The cluster's end of a nursery: starts it, asks it for workers, hears how they ended.

A worker that was forked is no child of the cluster, so its end is seen by its log, which only it has open; the nursery
adds the exit status. Workers outlive their nursery: only when one of them has ended is the next nursery asked for it.
Lives on the event loop of the cluster.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from contextlib import suppress

import psutil  # type: ignore[import-untyped]  # it ships no types

from qwen_aio.cluster.child import Process, Tell, spawn, tell_lines
from qwen_aio.cluster.lifeline import Lifeline
from qwen_aio.cluster.protocol import Ended, ForkMessage, Messages, Started, WeightsLoaded, WorkerSpec, encode

CHUNK = 4096
Birth = tuple[int, asyncio.Future[int | None]]  # the pid, and what gets the exit status


class ForkServerClient:
    """One nursery after another, and the workers that come from them."""

    def __init__(self, command: Sequence[str], *, lifeline: Lifeline) -> None:
        """`command` starts a nursery; the number of its socket is added."""
        self._command = command
        self._lifeline = lifeline
        self._loaded = asyncio.Event()
        self._control: socket.socket | None = None
        self._listening: asyncio.Task[None] | None = None
        self._births: dict[str, asyncio.Future[Birth]] = {}  # by the worker that is wanted
        self._ends: dict[int, asyncio.Future[int | None]] = {}  # of those born here, by pid

    async def start(self, tell: Tell) -> Process:
        """Start a nursery; the one before has ended. Raises OSError."""
        if self._listening is not None:
            await self._listening
        self._control, theirs = socket.socketpair()
        self._listening = asyncio.create_task(self._listen(self._control), name="nursery link")
        with theirs:
            command = [*self._command, "--control", str(theirs.fileno())]
            return await spawn(command, tell, lifeline=self._lifeline, inherited_files=(theirs.fileno(),))

    async def is_ready(self) -> bool:
        """Whether a worker can be had."""
        return self._loaded.is_set()

    async def fork(self, wanted: WorkerSpec, tell: Tell) -> Process:
        """A worker of this nursery, or of the next one that is ready. Raises OSError."""
        while True:
            await self._loaded.wait()
            reading, writing = os.pipe()
            telling = asyncio.create_task(_tell_log(reading, tell))  # ends once nobody can write any more
            try:
                pid, end = await self._ask(wanted, writing)
            except _NurseryGone:
                continue
            finally:
                os.close(writing)
            return _Forked(pid, end, telling)

    async def _ask(self, wanted: WorkerSpec, log: int) -> Birth:
        assert self._control is not None
        birth: asyncio.Future[Birth] = asyncio.get_running_loop().create_future()
        self._births[wanted.id] = birth
        try:
            socket.send_fds(self._control, [encode(wanted)], [log])
            return await birth
        except OSError as exc:
            self._loaded.clear()  # nobody asks again before the end is noticed
            raise _NurseryGone from exc
        finally:
            del self._births[wanted.id]

    async def _listen(self, control: socket.socket) -> None:
        control.setblocking(False)
        messages = Messages()
        with control, suppress(ConnectionError):
            while chunk := await asyncio.get_running_loop().sock_recv(control, CHUNK):
                for message in messages.feed(chunk):
                    self._take(message)
        self._let_go()

    def _take(self, message: ForkMessage) -> None:
        match message:
            case WeightsLoaded():
                self._loaded.set()
            case Started(worker_id, pid):
                end = self._ends[pid] = asyncio.get_running_loop().create_future()
                birth = self._births.get(worker_id)
                if birth is not None and not birth.done():
                    birth.set_result((pid, end))
            case Ended(pid, status):
                self._ends.pop(pid).set_result(status)

    def _let_go(self) -> None:
        """The nursery is gone: nobody will be born of it, and nobody will tell how its workers end."""
        self._loaded.clear()
        for birth in self._births.values():
            if not birth.done():
                birth.set_exception(_NurseryGone())
        for end in self._ends.values():
            end.set_result(None)
        self._ends.clear()


class _NurseryGone(Exception):
    """It ended before it gave the worker that was wanted."""


class _Forked:
    """A Process that is another one's child."""

    def __init__(self, pid: int, end: asyncio.Future[int | None], telling: asyncio.Task[None]) -> None:
        self._end = end
        self._telling = telling
        self._process: psutil.Process | None = None
        with suppress(psutil.NoSuchProcess):
            # It knows when it started: whoever else gets this pid later is not signalled.
            self._process = psutil.Process(pid)

    def terminate(self) -> None:
        """See Process."""
        if self._process is not None:
            with suppress(psutil.NoSuchProcess):
                self._process.terminate()

    def kill(self) -> None:
        """See Process."""
        if self._process is not None:
            with suppress(psutil.NoSuchProcess):
                self._process.kill()

    async def ended(self) -> int | None:
        """See Process."""
        await asyncio.wait({self._telling})
        return await asyncio.shield(self._end)


async def _tell_log(reading: int, tell: Tell) -> None:
    output = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(output), os.fdopen(reading, "rb", 0)
    )
    try:
        await tell_lines(output, tell)
    finally:
        transport.close()
