"""The balancer, put together from its parts, and the snapshot that shows them."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from random import Random

from qwen_aio import __version__
from qwen_aio.balancer.cost.policies import POLICIES
from qwen_aio.balancer.cost.queue import RequestQueue
from qwen_aio.balancer.dispatch.dispatcher import Dispatcher
from qwen_aio.balancer.dispatch.placement import Placement
from qwen_aio.balancer.dispatch.remote_executor import RemoteExecutor
from qwen_aio.balancer.dispatch.retry_budget import RetryBudget
from qwen_aio.balancer.metrics import BalancerMetrics
from qwen_aio.balancer.params import PARAMS, Params
from qwen_aio.balancer.snapshot import AdminState, HealthRecord, Snapshot
from qwen_aio.balancer.stats import Stats
from qwen_aio.balancer.workers.admin import AdminFile
from qwen_aio.balancer.workers.clients import WorkerClients
from qwen_aio.balancer.workers.discovery import Discovery
from qwen_aio.balancer.workers.monitor import HealthMonitor
from qwen_aio.balancer.workers.registry import Registry
from qwen_aio.config import Settings
from qwen_aio.egress.guard import EgressGuard
from qwen_aio.errors import NoWorker, StatusUnwritable
from qwen_aio.serving.admission import AdmissionGate
from qwen_aio.serving.health_routes import Health
from qwen_aio.serving.metrics import EgressMetrics
from qwen_aio.serving.pipeline import Pipeline

TICK_S = 1.0


class Balancer:
    """Everything between the admission gate and the workers."""

    def __init__(
        self,
        settings: Settings,
        gate: AdmissionGate,
        *,
        status_dir: Path,
        egress: EgressGuard,
        params: Params = PARAMS,
        key: str | Callable[[], str] = "",
        tls_to: Callable[[str], ssl.SSLContext | None] = lambda _: None,
    ) -> None:
        """`egress` lets workers through; `key` and `tls_to` are for them, too, as in WorkerClients.

        Raises InvalidSettings.
        """
        params = replace(params, max_queue=settings.max_queue, slow_ms=settings.slow_ms)
        clock, random = time.monotonic, Random()
        discovery = Discovery.parse(settings.workers)
        self.stats = Stats()
        self.metrics = BalancerMetrics(self.snapshot)
        self.metrics.registry.register(EgressMetrics(egress))
        self._gate = gate
        self._egress = egress
        self._policy = settings.policy
        self._admin_file = AdminFile(status_dir)
        self._queue = RequestQueue(params)
        self._clients = WorkerClients(egress.peers, key=key, tls_to=tls_to)
        for name in discovery.names:
            egress.peers.add(name.url)
        self._registry = Registry(
            params, clock=clock, wall_clock=time.time, on_event=self.stats.event, asked_for=discovery.named_ids
        )
        for worker_id, url in discovery.urls:
            self._registry.expect(worker_id, url)
        placement = Placement(self._registry, POLICIES[settings.policy](params, random))
        dispatcher = Dispatcher(self._registry, placement, self._queue, params=params, clock=clock, random=random)
        self._match = dispatcher.match
        self._monitor = HealthMonitor(
            self._registry, self._clients, discovery, status_dir / "status.json", clock=clock, on_change=self._match
        )
        self.executor = RemoteExecutor(
            self._registry,
            dispatcher,
            self._clients,
            RetryBudget(params, clock),
            self.stats,
            self.metrics,
            params=params,
            clock=clock,
            is_gone=self._monitor.is_gone,
        )

    async def live(self) -> None:
        """Run until cancelled; the gate opens at once, since requests may wait for a worker."""
        self._registry.restore_admin(self._admin_file.read())
        try:
            await self._monitor.check()
            self._gate.open(Pipeline(self.executor))
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._monitor.run(), name="monitor")
                tasks.create_task(self._tick(), name="stats")
        finally:
            await self._clients.keep(())

    def snapshot(self) -> Snapshot:
        rows = self._registry.rows()
        return Snapshot(
            time=time.time(),
            state="draining" if self._gate.state == "draining" else self._registry.state(),
            policy=self._policy,
            asked_for=self._registry.num_asked_for,
            ready=self._registry.num_ready,
            waiting=len(self._queue),
            waiting_work_s=self._queue.work_s,
            in_flight=sum(row.in_flight for row in rows),
            requests=self.stats.num_requests,
            failures=self.stats.num_failures,
            egress_refused=self._egress.refused,
            version=__version__,
            workers=rows,
        )

    def set_admin(self, worker_id: str, state: AdminState, *, force: bool) -> None:
        """Kept through restarts. Raises UnknownWorker, LastWorker, StatusUnwritable."""
        before = self._registry.admin_states()
        self._registry.set_admin(worker_id, state, force=force)
        try:
            self._admin_file.write(self._registry.admin_states())
        except StatusUnwritable:
            self._registry.restore_admin(before)
            raise
        if state == "maint":
            self.executor.call_off(worker_id)
        self._match()

    def health(self) -> Health:
        """ok with all workers, degraded with fewer, a refusal with none."""
        snapshot = self.snapshot()
        record = HealthRecord(
            snapshot.state,
            snapshot.ready,
            snapshot.asked_for,
            snapshot.waiting,
            snapshot.policy,
            snapshot.egress_refused,
            snapshot.version,
            {row.id: row.health if row.admin == "ready" else row.admin for row in snapshot.workers},
        )
        absence = None if snapshot.ready else NoWorker(self._registry.absence(), retry_after_s=5)
        return Health(asdict(record), self._gate.refusal or absence)

    async def _tick(self) -> None:
        while True:
            if self._gate.state == "draining":
                self.stats.close()
            self.stats.tick(self.snapshot())
            await asyncio.sleep(TICK_S)
