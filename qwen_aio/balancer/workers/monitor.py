"""Looks how the workers are: at status.json, and at /health of those the file cannot speak for.

Those are workers on other machines, and local ones whose record has stopped moving: a disk that is full must not look
like workers that are dead. Every worker is asked on its own and names are resolved beside all that, so nothing that
hangs delays anybody. Tells the pool what it found and concludes nothing itself. Owns its tasks; the pool is the event
loop's.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from qwen_aio.balancer.dispatch.placement import Placement
from qwen_aio.balancer.reasons import Reason
from qwen_aio.balancer.workers.clients import WorkerClients
from qwen_aio.balancer.workers.discovery import Discovery, DnsName
from qwen_aio.config import WORKER_ID
from qwen_aio.errors import ConnectionLost, QwenAioError, ServerUnreachable, StatusUnreadable
from qwen_aio.status_file import read_status, read_statuses

LOOK_S = 0.5
ASK_S = 2.0  # between two questions to one worker
ANSWER_WITHIN_S = 2.0
LIFE_SIGN_WITHIN_S = 1.0
RESOLVE_S = 5.0

log = logging.getLogger(__name__)
Resolve = Callable[[DnsName], Awaitable[list[str]]]


async def resolve(name: DnsName) -> list[str]:
    """The addresses behind `name` now. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(name.name, name.port, type=socket.SOCK_STREAM)
    return sorted({str(address[0]) for *_, address in found})


class HealthMonitor:
    """`run` looks until it is cancelled; `on_change` is called after every look."""

    def __init__(
        self,
        pool: Placement,
        links: WorkerClients,
        sources: Discovery,
        status_path: Path,
        *,
        clock: Callable[[], float],
        on_change: Callable[[], None],
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        resolve: Resolve = resolve,
    ) -> None:
        self.read_errors = 0
        self._pool = pool
        self._links = links
        self._sources = sources
        self._status_path = status_path
        self._clock = clock
        self._on_change = on_change
        self._pause = pause
        self._resolve = resolve
        self._remote = dict(sources.urls)  # id -> address
        self._asking: dict[tuple[str, str], asyncio.Task[None]] = {}  # by id and address
        self._asked_at: dict[tuple[str, str], float] = {}  # of those who were asked just now
        self._resolving: asyncio.Task[None] | None = None
        self._resolved_at: float | None = None
        self._is_failing = False

    async def run(self) -> None:
        """Look again and again."""
        try:
            while True:
                await self.look()
                await self._pause(LOOK_S)
        finally:
            tasks = [*self._asking.values(), *([self._resolving] if self._resolving else [])]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def look(self) -> None:
        """One round: read the file, begin to ask whom it cannot speak for, let time do its part."""
        self._follow_names_soon()
        await self._read_file()
        self._asked_at = {whom: at for whom, at in self._asked_at.items() if self._clock() - at < ASK_S}
        for worker_id, url in self._pool.to_ask() | set(self._remote.items()):
            self._ask_soon(worker_id, url)
        self._pool.tick()
        await self._links.keep(self._pool.urls() | set(self._remote.values()))
        self._on_change()

    async def is_gone(self, worker_id: str) -> bool:
        """Whether nobody listens at the worker's address any more; the pool is told."""
        url = self._pool.url(worker_id)
        try:
            async with asyncio.timeout(LIFE_SIGN_WITHIN_S):
                await self._links.to(url).health()
        except ConnectionLost:
            return False  # somebody listens
        except ServerUnreachable as exc:
            self._pool.refused(worker_id, exc.message, url=url)
            return True
        except (TimeoutError, QwenAioError):
            return False
        return False

    async def _read_file(self) -> None:
        try:
            statuses = await asyncio.to_thread(read_statuses, self._status_path)
        except StatusUnreadable as exc:
            self.read_errors += 1
            if not self._is_failing:
                log.warning("status not read, workers are asked themselves: %s", exc)
            self._is_failing = True
            return
        if self._is_failing:
            log.info("status read again errors=%d", self.read_errors)
        self._is_failing = False
        for status in statuses.values():
            is_wanted = self._sources.takes_everybody and WORKER_ID.fullmatch(status.id)  # no worker has another id
            if is_wanted or status.id in self._sources.ids:
                self._pool.report(status)

    def _follow_names_soon(self) -> None:
        is_fresh = self._resolved_at is not None and self._clock() - self._resolved_at < RESOLVE_S
        if not self._sources.names or is_fresh or (self._resolving and not self._resolving.done()):
            return
        self._resolved_at = self._clock()
        self._resolving = asyncio.create_task(self._follow_names(), name="resolve")

    async def _follow_names(self) -> None:
        remote = dict(self._sources.urls)
        for name in self._sources.names:
            try:
                addresses = await self._resolve(name)
            except (OSError, UnicodeError) as exc:  # the second one says that it cannot be a name at all
                log.warning("%s cannot be resolved: %s; its last addresses stay", name.name, exc)
                return
            remote |= dict(map(name.worker, addresses))
        for worker_id, url in remote.items():
            self._pool.expect(worker_id, url)
        self._remote = remote

    def _ask_soon(self, worker_id: str, url: str) -> None:
        whom = worker_id, url
        if whom in self._asking or (whom in self._asked_at and not self._pool.lacks_offer(worker_id)):
            return
        self._asked_at[whom] = self._clock()
        task = self._asking[whom] = asyncio.create_task(self._ask(worker_id, url), name=f"ask {worker_id}")
        task.add_done_callback(lambda _: self._asking.pop(whom))

    async def _ask(self, worker_id: str, url: str) -> None:
        """Its record, and once a life what it can do."""
        link, asked_at = self._links.to(url), self._clock()
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                status = read_status(await link.health())
                if status is None:
                    return
                # Elsewhere it may go by another name, and its own idea of its address means nothing here.
                status = replace(status, id=worker_id if worker_id in self._remote else status.id, url=url)
                if status.id != worker_id:
                    self._pool.refused(worker_id, Reason("other_worker", worker=status.id), url=url)
                    return
                self._pool.answered(status, asked_at=asked_at)
                if status.state == "ready" and self._pool.lacks_offer(worker_id):
                    await self._ask_offer(worker_id, url)
        except ConnectionLost:
            return
        except ServerUnreachable as exc:
            self._pool.refused(worker_id, exc.message, url=url)
        except (TimeoutError, QwenAioError) as exc:
            log.debug("worker %s does not tell how it is: %s", worker_id, exc)
        finally:
            self._on_change()

    async def _ask_offer(self, worker_id: str, url: str) -> None:
        offer = await self._links.to(url).offer()
        if self._pool.url(worker_id) == url:  # another process may have, or have got, the id
            self._pool.describe(worker_id, offer)
