"""Servers for the time of a measurement: started as a user would start them, ended whatever happens."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

ROOT = Path(__file__).resolve().parent.parent
READY_WITHIN_S = 120.0


@asynccontextmanager
async def started(mode: str, *flags: str) -> AsyncIterator[str]:
    """The address of an app.py of our own, ready. Raises RuntimeError if it does not come up."""
    port = free_port()
    with tempfile.TemporaryDirectory() as status_dir:
        command = ["app.py", "--mode", mode, "--port", str(port), "--status-dir", status_dir, *flags]
        process = await asyncio.create_subprocess_exec(sys.executable, *command, cwd=ROOT, env=_environment())
        try:
            url = f"http://127.0.0.1:{port}"
            await _until_ready(url, process)
            yield url
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


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


async def _until_ready(url: str, process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(READY_WITHIN_S):
        while not await asyncio.to_thread(_is_ready, url):
            if process.returncode is not None:
                raise RuntimeError(f"the worker ended with status {process.returncode} before it was ready")
            await asyncio.sleep(0.2)


def _is_ready(url: str) -> bool:
    try:
        with build_opener(ProxyHandler({})).open(f"{url}/readyz", timeout=2) as response:
            return bool(response.status == 200)
    except (URLError, OSError):
        return False
