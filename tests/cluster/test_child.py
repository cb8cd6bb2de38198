"""Real processes: their output, their end, and that none outlives its parent, however that one dies."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import psutil
import pytest

from qwen_aio.cluster.child import CHUNK, Subprocess, spawn
from qwen_aio.cluster.lifeline import Lifeline
from tests.e2e.clusters import wait_gone

# A cluster in small: a child of its own, a fork server and a worker that was forked. Prints their pids.
PARENT = """
import asyncio, os, signal, sys
from qwen_aio.cluster.protocol import WorkerSpec
from qwen_aio.cluster.child import spawn
from qwen_aio.cluster.lifeline import Lifeline
from qwen_aio.cluster.forkserver_client import ForkServerClient

CHILD = "import os, signal; from qwen_aio.cluster.lifeline import hold_if_given; hold_if_given(); print(os.getpid(), flush=True); signal.pause()"
FORKSERVER = '''
import os, signal, socket, sys
from qwen_aio.cluster import lifeline
from qwen_aio.cluster.forkserver import ForkServer

def be_worker(spec):
    print(os.getpid(), flush=True)
    print(os.getppid(), flush=True)
    signal.pause()

lifeline.hold()
with socket.socket(fileno=int(sys.argv[-1])) as control:
    raise SystemExit(ForkServer(control, become=be_worker).run())
'''

async def main():
    lifeline = Lifeline()
    on_line = lambda line: print(line, flush=True)
    client = ForkServerClient([sys.executable, "-c", FORKSERVER], lifeline=lifeline)
    kept = [await spawn([sys.executable, "-c", CHILD], on_line, lifeline=lifeline), await client.start(on_line)]
    kept.append(await client.fork(WorkerSpec("qwen-1", 1, 1), on_line))
    await asyncio.sleep(3600)

asyncio.run(main())
"""


async def run(code: str, lines: list[str]) -> Subprocess:
    return await spawn([sys.executable, "-c", code], lines.append, lifeline=Lifeline())


async def test_every_line_is_read_before_the_end_is_known():
    lines: list[str] = []
    process = await run("import sys; print('one\\ntwo'); sys.stderr.write('no end'); raise SystemExit(7)", lines)
    assert await process.ended() == 7
    assert sorted(lines) == ["no end", "one", "two"]


async def test_a_line_without_end_does_not_stay_in_memory():
    lines: list[str] = []
    process = await run(f"print('x' * {5 * CHUNK}, flush=True)", lines)
    await process.ended()
    assert len(lines) > 1
    assert "".join(lines) == "x" * 5 * CHUNK


async def test_ended_ones_may_be_signalled_and_asked_again():
    process = await run("import signal; signal.pause()", [])
    process.kill()
    assert await process.ended() == -signal.SIGKILL
    process.terminate()
    process.kill()
    assert await process.ended() == -signal.SIGKILL


async def test_waiting_can_be_given_up_and_taken_up_again():
    process = await run("import signal; signal.pause()", [])
    waiting = asyncio.create_task(process.ended())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting})
    process.terminate()
    assert await process.ended() == -signal.SIGTERM


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_process_outlives_its_parent(number):
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    try:
        children = [psutil.Process(int(parent.stdout.readline())) for _ in range(3)]
        assert len(set(children)) == 3
        assert parent.pid not in {child.pid for child in children}
    finally:
        parent.send_signal(number)
        parent.wait()
    wait_gone(children)
