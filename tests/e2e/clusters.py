"""A whole cluster, as a user would start it, on ports of its own; nothing of it is left, whatever happens."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

import psutil

from qwen_aio.cluster.plan import PORT_STEP
from qwen_aio.errors import InvalidSettings
from qwen_aio.serving.transport.server import bind
from tests.e2e.prepared import put_prepared_weights
from tests.e2e.processes import NOTHING, App, free_port

END_WITHIN_S = 60.0


@dataclass
class Cluster(App):
    """A running `qwen-aio cluster`; `url` is its balancer's."""

    page_url: str
    ports: tuple[int, ...]

    def is_ready(self) -> bool:
        return "Ctrl-C ends everything" in self.log.read_text()

    def is_whole(self) -> bool:
        """Whether the balancer answers and says that all workers are there."""
        try:
            status, health = self.get("/health")
        except (URLError, OSError):
            return False
        return status == 200 and health["state"] == "ok"

    def worker_pids(self) -> dict[str, int]:
        return {worker_id: record["pid"] for worker_id, record in self.status().items()}

    def child(self, *words: str) -> psutil.Process | None:
        """The cluster's own child that has all these words in its command."""
        found = [child for child in psutil.Process(self.process.pid).children() if set(words) <= _command(child)]
        return found[0] if found else None

    def everybody(self) -> set[psutil.Process]:
        """All processes of the cluster, and itself."""
        own = psutil.Process(self.process.pid)
        return {own, *own.children(recursive=True)}


@contextmanager
def cluster(
    home: Path,
    *flags: str,
    num_workers: int,
    wait: bool = True,
    environment: Mapping[str, str] = NOTHING,
    before: Callable[[], None] | None = None,
    python: str = sys.executable,
) -> Iterator[Cluster]:
    """Start one; ready when this begins, unless `wait` is false. `before` runs in the process before the program does.

    `python` is that of the installation.
    """
    home.mkdir(exist_ok=True)
    put_prepared_weights(home)
    page, balancer, first = free_port(), free_port(), _free_row(num_workers)
    ports = ("--port", str(page), "--balancer-port", str(balancer), "--worker-port", str(first))
    log = home / "cluster.log"
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("QWEN_AIO_")}
    process = subprocess.Popen(
        [python, "-m", "qwen_aio.cli.main", "cluster", "--workers", str(num_workers), *ports, *flags],
        env=inherited | {"QWEN_AIO_HOME": str(home), "PYTHONUNBUFFERED": "1"} | dict(environment),
        stdout=log.open("wb"),
        stderr=subprocess.STDOUT,
        preexec_fn=before,
    )
    row = tuple(first + PORT_STEP * number for number in range(num_workers))
    running = Cluster(
        process, f"http://127.0.0.1:{balancer}", home, log, f"http://127.0.0.1:{page}", (page, balancer, *row)
    )
    try:
        if wait:
            running.wait_until("ready", running.is_ready)
        yield running
    finally:
        process.kill()
        process.wait()


def wait_gone(processes: Iterable[psutil.Process]) -> None:
    """Fails with those who are still there after a while. One that nobody has reaped yet is gone."""
    deadline = time.monotonic() + END_WITHIN_S
    while alive := [process for process in processes if _is_alive(process)]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.02)


def wait_free(ports: Iterable[int]) -> None:
    """Fails with the ports that cannot be had after a while."""
    deadline = time.monotonic() + END_WITHIN_S
    while taken := [port for port in ports if not _is_free(port)]:
        assert time.monotonic() < deadline, taken
        time.sleep(0.02)


def _free_row(count: int) -> int:
    """A port that is free, as are those a hundred further and so on."""
    while True:
        first = free_port()
        if first + PORT_STEP * count < 65536 and all(_is_free(first + PORT_STEP * number) for number in range(count)):
            return first


def _is_free(port: int) -> bool:
    try:
        bind("127.0.0.1", port).close()
    except InvalidSettings:
        return False
    return True


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _command(process: psutil.Process) -> set[str]:
    try:
        return set(process.cmdline())
    except psutil.Error:
        return set()
