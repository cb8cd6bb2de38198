"""A balancer over real sockets, before workers with fake engines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from qwen_aio.balancer.app import create_balancer_app
from qwen_aio.balancer.balancer import Balancer
from qwen_aio.balancer.params import PARAMS, Params
from qwen_aio.client.async_client import AsyncClient
from qwen_aio.config import Settings
from qwen_aio.egress.guard import EgressGuard
from qwen_aio.serving.access.key_ring import KeyRing
from qwen_aio.serving.admission import AdmissionGate
from qwen_aio.serving.app import NO_KEYS
from qwen_aio.serving.transport.server import bind, run_server
from tests.balancer.chaos import ChaosProxy, chaos_before
from tests.fakes import FakeEngine
from tests.served import Worker, served

# Fake engines take no time, and tests as little as possible.
PATIENT = replace(  # where no worker hangs, slowness is the machine's
    PARAMS,
    first_token_slack_s=30.0,
    least_gap_s=30.0,
    first_open_s=0.05,
    no_worker_grace_s=2.0,
    prefill_tokens_per_s=1e4,
    decode_tokens_per_s=1e4,
    fixed_work_s=0.001,
)
HASTY = replace(PATIENT, first_token_slack_s=0.2, least_gap_s=0.2)


@dataclass
class Service:
    """A running balancer, a client of it, and a chaos proxy before every worker."""

    balancer: Balancer
    gate: AdmissionGate
    client: AsyncClient
    url: str
    serving: asyncio.Task[int]
    paths: dict[str, ChaosProxy]
    engines: Mapping[str, FakeEngine]

    async def until(self, check) -> None:
        """Wait for something the balancer comes to see; the test's own time limit ends a wait in vain."""
        while not check():  # noqa: ASYNC110  the balancer signals nothing
            await asyncio.sleep(0.01)

    async def until_ready(self, count: int) -> None:
        await self.until(lambda: self.balancer.snapshot().ready >= count)

    def rows(self):
        """The request log, oldest first."""
        return self.balancer.stats.history().requests

    def row(self, worker_id: str):
        return next(row for row in self.balancer.snapshot().workers if row.id == worker_id)

    def assert_quiet(self) -> None:
        """Nothing is in flight or waiting."""
        shown = self.balancer.snapshot()
        assert (shown.in_flight, shown.waiting, self.gate.in_flight) == (0, 0, 0)
        assert all(engine.open_streams == 0 for engine in self.engines.values())


@asynccontextmanager
async def balanced(
    engines: Mapping[str, FakeEngine],
    status_dir: Path,
    *,
    params: Params = PATIENT,
    grace_s: float = 5.0,
    key: str | Callable[[], str] = "",
    keys: KeyRing = NO_KEYS,
    **more: object,
) -> AsyncIterator[Service]:
    """A balancer before one worker for each of `engines`, ready; `workers` names others.

    `key` opens the workers, `keys` those that open the balancer.
    """
    async with AsyncExitStack() as stack:
        paths = {}
        for worker_id, engine in engines.items():
            worker = await stack.enter_async_context(served(Worker(engine, worker_id=worker_id)))
            paths[worker_id] = await stack.enter_async_context(chaos_before(worker.port))
        workers = tuple(f"{worker_id}={path.url}" for worker_id, path in paths.items())
        settings = Settings(**{"workers": workers, **more})
        gate = AdmissionGate()
        balancer = Balancer(settings, gate, status_dir=status_dir, egress=EgressGuard(), params=params, key=key)
        sock = bind("127.0.0.1", 0)
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        app = create_balancer_app(balancer, gate, keys=keys)
        serving = asyncio.create_task(run_server(app, sock=sock, gate=gate, life=balancer.live, grace_s=grace_s))
        client = await stack.enter_async_context(AsyncClient(url))
        service = Service(balancer, gate, client, url, serving, paths, engines)
        try:
            await service.until(lambda: gate.state == "ready")
            await service.until_ready(len(engines))
            yield service
        finally:
            serving.cancel()
            await asyncio.wait({serving})
            sock.close()
