"""Who runs in a cluster, on which ports, and by which commands. Decided once, from the settings; starts nothing."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass

from qwen_aio.cluster.protocol import WorkerSpec
from qwen_aio.config import PAGE_PORT, Settings
from qwen_aio.errors import InvalidSettings
from qwen_aio.machine.cores import usable_cores
from qwen_aio.startup.listening import url_of

PORT_STEP = 100
LAST_PORT = 65535
USUAL_WORKERS, MAX_WORKERS = 3, 64
WORKER_HOST = "127.0.0.1"  # the balancer is before them, and who may come in is decided there
PUBLIC = ("host", "allowed_hosts", "root_path", "trusted_proxies", "insecure", "log_level")
WORKER = (
    *("model", "precision", "prompts_dir", "status_dir", "max_context", "kv_mb", "max_batch_tokens", "max_queue"),
    *("golden", "log_level"),
)
BALANCER = ("policy", "slow_ms", "max_queue", "status_dir", *PUBLIC)


@dataclass(frozen=True)
class ClusterPlan:
    """The workers, and the addresses of everybody."""

    host: str  # of page and balancer
    page_port: int
    balancer_port: int
    workers: tuple[WorkerSpec, ...]
    shares_weights: bool

    def __str__(self) -> str:
        threads = self.workers[0].threads
        with_threads = f"with {threads} thread{'s' if threads > 1 else ''}"
        if len(self.workers) == 1:
            return f"1 worker {with_threads}"
        weights = "sharing one copy of the weights" if self.shares_weights else "each with weights of its own"
        return f"{len(self.workers)} workers {with_threads} each, {weights}"

    @property
    def addresses(self) -> list[tuple[str, int, str]]:
        """Host and port of everybody who listens, and the flag that changes the port."""
        public = [(self.host, self.page_port, "--port"), (self.host, self.balancer_port, "--balancer-port")]
        return public + [(WORKER_HOST, worker.port, "--worker-port") for worker in self.workers]

    @property
    def page_url(self) -> str:
        return url_of(self.host, self.page_port)

    @property
    def balancer_url(self) -> str:
        return url_of(self.host, self.balancer_port)


def plan_cluster(settings: Settings) -> ClusterPlan:
    """The cluster that `settings` ask for. Raises InvalidSettings."""
    page_port, balancer_port = settings.port or PAGE_PORT, settings.balancer_port
    if page_port == balancer_port:
        raise InvalidSettings(f"page and balancer cannot both have port {page_port}; change --port or --balancer-port")
    count = _num_workers(settings.workers)
    threads = settings.threads or max(1, usable_cores() // count)
    every = range(settings.worker_port, LAST_PORT + 1, PORT_STEP)
    ports = [port for port in every if port not in (page_port, balancer_port)][:count]
    if len(ports) < count:
        raise InvalidSettings(
            f"from port {settings.worker_port} there is no room for {count} workers, {PORT_STEP} ports apart"
        )
    return ClusterPlan(
        host=settings.host,
        page_port=page_port,
        balancer_port=balancer_port,
        workers=tuple(WorkerSpec(f"qwen-{number}", port, threads) for number, port in enumerate(ports, start=1)),
        shares_weights=_shares_weights(settings.share_weights, num_workers=count),
    )


class Commands:
    """The command of each child. What was typed for the cluster is handed on to those whom it concerns."""

    def __init__(self, plan: ClusterPlan, typed: Namespace) -> None:
        self._plan = plan
        self._typed = typed

    def nursery(self) -> list[str]:
        """Forks workers; see nursery.py."""
        return [sys.executable, "-m", "qwen_aio.cli.forkserver", "--host", WORKER_HOST, *self._handed_on(WORKER)]

    def worker(self, worker: WorkerSpec) -> list[str]:
        """One that loads its own weights."""
        own = ("--mode", "worker", "--id", worker.id, "--port", str(worker.port), "--threads", str(worker.threads))
        return self._ours("serve", *own, "--host", WORKER_HOST, *self._handed_on(WORKER))

    def balancer(self) -> list[str]:
        ids = ",".join(worker.id for worker in self._plan.workers)
        own = ("--workers", ids, "--port", str(self._plan.balancer_port))
        return self._ours("balance", *own, *self._handed_on(BALANCER))

    def page(self) -> list[str]:
        own = ("--mode", "ui", "--url", self._plan.balancer_url, "--port", str(self._plan.page_port))
        return self._ours("serve", *own, *self._handed_on(PUBLIC))

    def _ours(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "qwen_aio.cli.main", *arguments]

    def _handed_on(self, names: Sequence[str]) -> list[str]:
        flags: list[str] = []
        for name in ("config", *names):
            value = getattr(self._typed, name, None)
            if value is not None:
                flag = f"--{name.replace('_', '-')}"
                flags += [flag] if value is True else [flag, str(value)]
        return flags


def _num_workers(asked: tuple[str, ...]) -> int:
    if not asked:
        return min(USUAL_WORKERS, usable_cores())
    number = asked[0] if len(asked) == 1 else ""
    if not number.isdecimal() or not 1 <= int(number) <= MAX_WORKERS:
        raise InvalidSettings(f"--workers: a cluster takes their number, 1 to {MAX_WORKERS}, not {','.join(asked)!r}")
    return int(number)


def _shares_weights(asked: str | None, *, num_workers: int) -> bool:
    if not hasattr(os, "fork"):
        if asked == "on":
            raise InvalidSettings("--share-weights on: this system cannot fork a process; leave it off")
        return False
    if asked:
        return asked == "on"
    return num_workers > 1 and can_fork()


def can_fork() -> bool:
    """Whether workers may be forks of one process here."""
    # On macOS the system's own libraries may not be used between a fork and the start of another program.
    return hasattr(os, "fork") and sys.platform != "darwin"
