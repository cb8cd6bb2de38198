"""Checks the health of workers: in status.json, and at /health where the file says too little.

That is the case for remote workers, and for local ones whose report stands still: a full disk must
not look like dead workers. Every worker is asked in a task of its own and names are resolved beside
that, so nothing that hangs delays the rest. Reports to the registry and concludes nothing itself.
Owns its tasks; the registry is the event loop's.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

from qwen_aio.balancer.reasons import KEY_REFUSED, OTHER_WORKER, Reason
from qwen_aio.balancer.workers.clients import WorkerClients
from qwen_aio.balancer.workers.discovery import Discovery, DnsName
from qwen_aio.balancer.workers.registry import Registry
from qwen_aio.config import WORKER_ID
from qwen_aio.errors import ConnectionLost, KeyRefused, QwenAioError, ServerUnreachable, StatusUnreadable
from qwen_aio.status.file import read_statuses
from qwen_aio.status.record import read_status

CHECK_PERIOD_S = 0.5
ASK_PERIOD_S = 2.0  # per worker
HEALTH_TIMEOUT_S = 2.0
LIFE_SIGN_TIMEOUT_S = 1.0
RESOLVE_PERIOD_S = 5.0

logger = logging.getLogger(__name__)
Resolve = Callable[[DnsName], Awaitable[list[str]]]


async def resolve(name: DnsName) -> list[str]:
    """The addresses of `name` now. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(name.name, name.port, type=socket.SOCK_STREAM)
    return sorted({str(address[0]) for *_, address in found})


@dataclass(eq=False)
class HealthMonitor:
    """`run` checks until it is cancelled, and calls `on_change` after every check."""

    registry: Registry
    clients: WorkerClients
    discovery: Discovery
    status_path: Path
    clock: Callable[[], float]
    on_change: Callable[[], None]
    resolve: Resolve = resolve

    def __post_init__(self) -> None:
        self.read_errors = 0
        self._remote = dict(self.discovery.urls)  # id -> address
        self._asking: dict[tuple[str, str], asyncio.Task[None]] = {}  # by id and address
        self._asked_at: dict[tuple[str, str], float] = {}
        self._resolving: asyncio.Task[None] | None = None
        self._resolved_at: float | None = None
        self._is_failing = False

    async def run(self) -> None:
        try:
            while True:
                await self.check()
                await asyncio.sleep(CHECK_PERIOD_S)
        finally:
            tasks = [*self._asking.values(), *([self._resolving] if self._resolving else [])]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def check(self) -> None:
        """One round: read the file, start to ask workers, let time count."""
        self._resolve_names_soon()
        await self._read_file()
        self._asked_at = {key: at for key, at in self._asked_at.items() if self.clock() - at < ASK_PERIOD_S}
        for worker_id, url in self.registry.to_ask() | set(self._remote.items()):
            self._ask_soon(worker_id, url)
        self.registry.tick()
        await self.clients.keep(self.registry.urls() | set(self._remote.values()))
        self.on_change()

    async def is_gone(self, worker_id: str) -> bool:
        """Does nothing listen at the worker's address any more? The registry learns it."""
        url = self.registry.url(worker_id)
        try:
            async with asyncio.timeout(LIFE_SIGN_TIMEOUT_S):
                await self.clients.to(url).health()
        except ConnectionLost:
            return False  # something listens
        except ServerUnreachable as exc:
            self.registry.refused(worker_id, exc.message, url=url)
            return True
        except (TimeoutError, QwenAioError):
            return False
        return False

    async def _read_file(self) -> None:
        try:
            statuses = await asyncio.to_thread(read_statuses, self.status_path)
        except StatusUnreadable as exc:
            self.read_errors += 1
            if not self._is_failing:
                logger.warning("status not read, workers are asked themselves: %s", exc)
            self._is_failing = True
            return
        if self._is_failing:
            logger.info("status read again errors=%d", self.read_errors)
        self._is_failing = False
        for status in statuses.values():
            is_taken = self.discovery.takes_all and WORKER_ID.fullmatch(status.id)
            if is_taken or status.id in self.discovery.ids:
                self.registry.report(status)

    def _resolve_names_soon(self) -> None:
        is_fresh = self._resolved_at is not None and self.clock() - self._resolved_at < RESOLVE_PERIOD_S
        if not self.discovery.names or is_fresh or (self._resolving and not self._resolving.done()):
            return
        self._resolved_at = self.clock()
        self._resolving = asyncio.create_task(self._resolve_names(), name="resolve")

    async def _resolve_names(self) -> None:
        remote = dict(self.discovery.urls)
        for name in self.discovery.names:
            try:
                addresses = await self.resolve(name)
            except (OSError, UnicodeError) as exc:  # UnicodeError: it cannot be a host name at all
                logger.warning("%s cannot be resolved: %s; its last addresses stay", name.name, exc)
                return
            remote |= dict(map(name.worker, addresses))
        for worker_id, url in remote.items():
            self.registry.expect(worker_id, url)
        self._remote = remote

    def _ask_soon(self, worker_id: str, url: str) -> None:
        key = worker_id, url
        if key in self._asking or (key in self._asked_at and not self.registry.lacks_capabilities(worker_id)):
            return
        self._asked_at[key] = self.clock()
        task = self._asking[key] = asyncio.create_task(self._ask(worker_id, url), name=f"ask {worker_id}")
        task.add_done_callback(lambda _: self._asking.pop(key))

    async def _ask(self, worker_id: str, url: str) -> None:
        """Get its report, and once per process its capabilities."""
        client, asked_at = self.clients.to(url), self.clock()
        try:
            async with asyncio.timeout(HEALTH_TIMEOUT_S):
                status = read_status(await client.health())
                if status is None:
                    return
                # A remote worker may call itself by another id and another address.
                status = replace(status, id=worker_id if worker_id in self._remote else status.id, url=url)
                if status.id != worker_id:
                    self.registry.refused(worker_id, Reason(OTHER_WORKER, worker=status.id), url=url)
                    return
                self.registry.answered(status, asked_at=asked_at)
                if status.state == "ready" and self.registry.lacks_capabilities(worker_id):
                    capabilities = await client.capabilities()
                    if self.registry.url(worker_id) == url:  # else it is another process by now
                        self.registry.describe(worker_id, capabilities)
        except ConnectionLost:
            return
        except ServerUnreachable as exc:
            self.registry.refused(worker_id, exc.message, url=url)
        except KeyRefused:
            self.registry.refused(worker_id, Reason(KEY_REFUSED), url=url)
        except (TimeoutError, QwenAioError) as exc:
            logger.debug("worker %s does not report its health: %s", worker_id, exc)
        finally:
            self.on_change()
