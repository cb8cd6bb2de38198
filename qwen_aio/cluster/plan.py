"""What runs in a cluster, on which ports, and by which commands.

Decided once, from the settings; starts nothing.
"""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from dataclasses import dataclass

from qwen_aio.cluster.protocol import WorkerSpec
from qwen_aio.config import PAGE_PORT, Reader, Settings
from qwen_aio.errors import InvalidSettings
from qwen_aio.machine.cores import usable_cores
from qwen_aio.startup.flags import as_flags, child_arguments
from qwen_aio.startup.listening import url_of

PORT_STEP = 100
LAST_PORT = 65535
USUAL_WORKERS, MAX_WORKERS = 3, 64
WORKER_HOST = "127.0.0.1"  # clients come through the balancer, which decides who may come in


@dataclass(frozen=True)
class ClusterPlan:
    """The workers, and the address of every process."""

    host: str  # of page and balancer
    page_port: int
    balancer_port: int
    workers: tuple[WorkerSpec, ...]
    shares_weights: bool
    has_tls: bool = False  # page and balancer

    def __str__(self) -> str:
        threads = self.workers[0].threads
        with_threads = f"with {threads} thread{'s' if threads > 1 else ''}"
        if len(self.workers) == 1:
            return f"1 worker {with_threads}"
        weights = "sharing one copy of the weights" if self.shares_weights else "each with weights of its own"
        return f"{len(self.workers)} workers {with_threads} each, {weights}"

    @property
    def addresses(self) -> list[tuple[str, int, str]]:
        """Host and port of every server, and the flag that changes the port."""
        public = [(self.host, self.page_port, "--port"), (self.host, self.balancer_port, "--balancer-port")]
        return public + [(WORKER_HOST, worker.port, "--worker-port") for worker in self.workers]

    @property
    def page_url(self) -> str:
        return url_of(self.host, self.page_port, has_tls=self.has_tls)

    @property
    def balancer_url(self) -> str:
        return url_of(self.host, self.balancer_port, has_tls=self.has_tls)

    def balancer_command(self, arguments: Namespace) -> list[str]:
        """The balancer, with the settings among `arguments`."""
        ids = ",".join(worker.id for worker in self.workers)
        return _command("balance", arguments, "balancer", workers=ids, port=self.balancer_port)

    def page_command(self, arguments: Namespace) -> list[str]:
        """The page, with the settings among `arguments`."""
        return _command("serve", arguments, "page", mode="ui", url=self.balancer_url, port=self.page_port)


def plan_cluster(settings: Settings) -> ClusterPlan:
    """The cluster that `settings` ask for. Raises InvalidSettings."""
    page_port, balancer_port = settings.port or PAGE_PORT, settings.balancer_port
    if page_port == balancer_port:
        raise InvalidSettings(f"page and balancer cannot both have port {page_port}; change --port or --balancer-port")
    count = _num_workers(settings.workers)
    threads = settings.threads or max(1, usable_cores() // count)
    ports = _worker_ports(settings.worker_port, count, taken=(page_port, balancer_port))
    return ClusterPlan(
        host=settings.host,
        page_port=page_port,
        balancer_port=balancer_port,
        workers=tuple(WorkerSpec(f"qwen-{number}", port, threads) for number, port in enumerate(ports, start=1)),
        shares_weights=_shares_weights(settings.share_weights, num_workers=count),
        has_tls=settings.tls_certificate is not None,
    )


def forkserver_command(arguments: Namespace) -> list[str]:
    """Forks workers, each of which has an id, a port and threads of its own."""
    own = {"host": WORKER_HOST, "id": None, "port": None, "threads": None}
    return [*_python("forkserver"), *as_flags(child_arguments(arguments, "worker", **own))]


def worker_command(arguments: Namespace, worker: WorkerSpec) -> list[str]:
    """A worker that loads its own weights."""
    return _command("serve", arguments, "worker", mode="worker", **worker.settings, host=WORKER_HOST)


def _command(command: str, arguments: Namespace, reader: Reader, **own: object) -> list[str]:
    """Its own settings come first, so that a list of processes shows which child is which."""
    return [*_python("main"), command, *as_flags(child_arguments(arguments, reader, **own))]


def _python(module: str) -> list[str]:
    return [sys.executable, "-m", f"qwen_aio.cli.{module}"]


def _worker_ports(first: int, count: int, *, taken: tuple[int, ...]) -> list[int]:
    every = range(first, LAST_PORT + 1, PORT_STEP)
    ports = [port for port in every if port not in taken][:count]
    if len(ports) < count:
        raise InvalidSettings(f"from port {first} there is no room for {count} workers, {PORT_STEP} ports apart")
    return ports


def _num_workers(asked: tuple[str, ...]) -> int:
    if not asked:
        return min(USUAL_WORKERS, usable_cores())
    number = asked[0] if len(asked) == 1 else ""
    if not number.isdecimal() or not 1 <= int(number) <= MAX_WORKERS:
        raise InvalidSettings(f"--workers: a cluster takes their number, 1 to {MAX_WORKERS}, not {','.join(asked)!r}")
    return int(number)


def _shares_weights(asked: str | None, *, num_workers: int) -> bool:
    if asked == "on" and not hasattr(os, "fork"):
        raise InvalidSettings("--share-weights on: this system cannot fork a process; leave it off")
    return asked == "on" or (asked is None and num_workers > 1 and can_fork())


def can_fork() -> bool:
    """Whether workers may be forks of one process here."""
    # On macOS the system's libraries may not be used between a fork and a new program.
    return hasattr(os, "fork") and sys.platform != "darwin"
