"""Forked workers, with a stand-in for what a worker does: none is lost, and none fails with another."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psutil
import pytest

from qwen_aio.cluster.child import Process
from qwen_aio.cluster.forkserver_client import ForkServerClient
from qwen_aio.cluster.lifeline import Lifeline
from qwen_aio.cluster.protocol import Ended, ForkMessage, Messages, WorkerSpec, encode

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")

# A worker that says who it is and, from its port, what becomes of it.
STAND_IN = """
import os, signal, socket, sys
from qwen_aio.cluster.forkserver import ForkServer

def be_worker(spec):
    print("I am", spec.id, os.getpid(), os.getppid(), flush=True)
    if spec.port == 1:
        raise RuntimeError("a bug")
    return 3 if spec.port == 3 else signal.pause()

with socket.socket(fileno=int(sys.argv[-1])) as control:
    raise SystemExit(ForkServer(control, become=be_worker).run())
"""
LIVES, BREAKS, RETURNS = 9, 1, 3


class Log:
    """Lines of one process as they come."""

    def __init__(self) -> None:
        self.lines: asyncio.Queue[str] = asyncio.Queue()

    def __call__(self, line: str) -> None:
        self.lines.put_nowait(line)

    async def pids(self) -> tuple[int, int]:
        """Of the worker that introduces itself next, and of its fork server."""
        *_, own, parent = (await self.lines.get()).split()
        return int(own), int(parent)


class Forks:
    """A client, its present fork server, and the workers that were forked."""

    def __init__(self) -> None:
        self.lifeline = Lifeline()
        self.client = ForkServerClient([sys.executable, "-c", STAND_IN], lifeline=self.lifeline)
        self.started: list[Process] = []

    async def start_server(self) -> Process:
        self.started.append(await self.client.start(Log()))
        return self.started[-1]

    async def fork(self, name: str, fate: int = LIVES) -> tuple[Process, Log]:
        log = Log()
        self.started.append(await self.client.fork(WorkerSpec(name, fate, 1), log))
        return self.started[-1], log


@asynccontextmanager
async def forks() -> AsyncIterator[Forks]:
    own = Forks()
    try:
        yield own
    finally:
        for process in own.started:
            process.kill()
        for process in own.started:
            await process.ended()


async def test_every_worker_is_a_process_of_its_own_with_a_log_of_its_own():
    async with forks() as own:
        await own.start_server()
        workers = await asyncio.gather(*(own.fork(f"qwen-{number}") for number in range(8)))
        pids = [await log.pids() for _, log in workers]
        assert len({worker for worker, _ in pids}) == 8
        assert len({server for _, server in pids}) == 1
        assert all(os.getpgid(worker) == worker for worker, _ in pids)  # Ctrl-C of the terminal reaches none


async def test_how_a_worker_ended_is_known():
    async with forks() as own:
        await own.start_server()
        killed, _ = await own.fork("killed")
        ended, _ = await own.fork("ended")
        returned, _ = await own.fork("returned", RETURNS)
        broken, log = await own.fork("broken", BREAKS)
        killed.kill()
        ended.terminate()
        statuses = [await process.ended() for process in (killed, ended, returned, broken)]
        assert statuses == [-signal.SIGKILL, -signal.SIGTERM, 3, 1]
        lines = [log.lines.get_nowait() for _ in range(log.lines.qsize())]
        assert lines[-1] == "RuntimeError: a bug"


async def test_the_death_of_a_worker_leaves_the_others_and_its_place_can_be_filled():
    async with forks() as own:
        await own.start_server()
        _, log = await own.fork("qwen-1")
        other, _ = await own.fork("qwen-2")
        first, server = await log.pids()
        other.kill()
        await other.ended()
        _, log = await own.fork("qwen-2")
        _, same = await log.pids()
        assert same == server
        assert psutil.Process(first).status() != psutil.STATUS_ZOMBIE


async def test_workers_outlive_their_fork_server_and_later_ones_come_from_the_next():
    async with forks() as own:
        server = await own.start_server()
        worker, log = await own.fork("qwen-1")
        pid, before = await log.pids()
        server.kill()
        await server.ended()
        replaced = asyncio.create_task(own.fork("qwen-2"))
        await own.start_server()
        _, log = await replaced
        _, after = await log.pids()
        assert before != after
        assert psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        worker.kill()
        assert await worker.ended() is None  # its server, which would know, is gone


def test_a_worker_whose_log_has_no_reader_ends_like_any_other():
    unread, log = os.pipe()
    os.close(unread)
    unflushed = STAND_IN.replace(", flush=True", "")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command = [sys.executable, "-c", unflushed, str(theirs.fileno())]
        buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
        server = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=(theirs.fileno(),), env=buffered)
        theirs.close()
        socket.send_fds(ours, [encode(WorkerSpec("qwen-1", RETURNS, 1))], [log])
        os.close(log)
        messages, received = Messages(), list[ForkMessage]()
        while not any(isinstance(message, Ended) for message in received):
            received.extend(messages.feed(ours.recv(4096)))
    assert isinstance(received[-1], Ended)
    assert received[-1].status == RETURNS
    assert server.wait() == 0
    server.communicate()
