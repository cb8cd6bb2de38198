"""Servers for the time of a measurement: started as a user would start them, ended whatever happens."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

ROOT = Path(__file__).resolve().parent.parent
READY_WITHIN_S = 120.0
TEXTS_PER_CALL = 64  # of /v1/run, so that its batches are full


@dataclass(frozen=True)
class Server:
    """A process of ours that serves at `url`."""

    url: str
    pid: int


@asynccontextmanager
async def started(mode: str, *flags: str) -> AsyncIterator[str]:
    """The address of an app.py of our own, ready. Raises RuntimeError if it does not come up."""
    with tempfile.TemporaryDirectory() as status_dir:
        async with serving("app.py", "--mode", mode, "--status-dir", status_dir, *flags) as server:
            yield server.url


@asynccontextmanager
async def serving(*command: str, root: Path = ROOT) -> AsyncIterator[Server]:
    """A program in `root` on a free port, ready; ended whatever happens. Raises RuntimeError if it does not come up."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, "--port", str(port), cwd=root, env=_environment()
    )
    try:
        url = f"http://127.0.0.1:{port}"
        await until_ready(url, process)
        yield Server(url, process.pid)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGCONT)
            process.terminate()
        await process.wait()


@asynccontextmanager
async def workers(count: int, status_dir: str, *flags: str, root: Path = ROOT) -> AsyncIterator[list[Server]]:
    """So many workers, ready, who report into `status_dir`."""
    async with AsyncExitStack() as stack:
        made = []
        for number in range(1, count + 1):
            command = ("app.py", "--mode", "worker", "--id", f"qwen-{number}", "--status-dir", status_dir, *flags)
            made.append(await stack.enter_async_context(serving(*command, root=root)))
        yield made


@asynccontextmanager
async def balancer(count: int, status_dir: str, *flags: str, root: Path = ROOT) -> AsyncIterator[Server]:
    """A balancer that has found the `count` workers of `status_dir`."""
    command = ("balancer.py", "--status-dir", status_dir, "--log-level", "warning", *flags)
    async with serving(*command, root=root) as server:
        async with asyncio.timeout(READY_WITHIN_S):
            while await asyncio.to_thread(_ready_count, server.url) < count:  # noqa: ASYNC110  another process
                await asyncio.sleep(0.1)
        yield server


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def machine() -> dict[str, object]:
    """What a number is worthless without."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {"cpu": names[0].partition(":")[2].strip() if names else "unknown", "cores": os.cpu_count()}


def last_line(summary: dict[str, object]) -> str:
    """The one JSON object that ends the output."""
    return json.dumps({**machine(), **summary}, ensure_ascii=False)


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("QWEN_AIO_")}


async def until_ready(url: str, process: asyncio.subprocess.Process) -> None:
    """Raises RuntimeError if `process` ends before, TimeoutError."""
    async with asyncio.timeout(READY_WITHIN_S):
        while not await asyncio.to_thread(_is_ready, url):
            if process.returncode is not None:
                raise RuntimeError(f"the server ended with status {process.returncode} before it was ready")
            await asyncio.sleep(0.2)


def _ready_count(url: str) -> int:
    with build_opener(ProxyHandler({})).open(f"{url}/status", timeout=2) as response:
        return int(json.load(response)["ready"])


def _is_ready(url: str) -> bool:
    try:
        with build_opener(ProxyHandler({})).open(f"{url}/readyz", timeout=2) as response:
            return bool(response.status == 200)
    except (URLError, OSError):
        return False
