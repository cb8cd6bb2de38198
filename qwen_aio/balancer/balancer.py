"""The balancer, put together: pool, line, calls, watch, admin file and board, and what is shown of them.

Owned by the event loop. `live` is its life: it looks after the workers and moves the charts until it is cancelled.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from random import Random

from qwen_aio import __version__
from qwen_aio.balancer.cost.estimate import CostModel
from qwen_aio.balancer.cost.policies import POLICIES
from qwen_aio.balancer.cost.queue import RequestQueue
from qwen_aio.balancer.dispatch.dispatcher import Dispatcher
from qwen_aio.balancer.dispatch.placement import Placement
from qwen_aio.balancer.dispatch.retry_budget import RetryBudget
from qwen_aio.balancer.dispatch.upstream import RemoteExecutor, Surroundings
from qwen_aio.balancer.params import RULES, Params
from qwen_aio.balancer.snapshot import AdminState, Snapshot
from qwen_aio.balancer.stats import Stats
from qwen_aio.balancer.workers.admin import AdminFile
from qwen_aio.balancer.workers.clients import WorkerClients
from qwen_aio.balancer.workers.discovery import Discovery
from qwen_aio.balancer.workers.monitor import HealthMonitor
from qwen_aio.config import Settings
from qwen_aio.errors import NoWorker, QwenAioError, StatusUnwritable
from qwen_aio.serving.admission import AdmissionGate
from qwen_aio.serving.app import Health
from qwen_aio.serving.pipeline import Pipeline

TICK_S = 1.0


class Balancer:
    """Everything between the door and the workers."""

    def __init__(
        self,
        settings: Settings,
        door: AdmissionGate,
        *,
        status_dir: Path,
        rules: Params = RULES,
    ) -> None:
        """Raises InvalidSettings."""
        rules = replace(rules, max_queue=settings.max_queue, slow_ms=settings.slow_ms)
        clock, random = time.monotonic, Random()
        sources = Discovery.parse(settings.workers)
        self.stats = Stats()
        self._door = door
        self._policy = settings.policy
        self._admin_file = AdminFile(status_dir)
        self._line = RequestQueue(rules)
        self._links = WorkerClients()
        self._pool = Placement(
            rules,
            policy=POLICIES[settings.policy](rules, random),
            clock=clock,
            wall_clock=time.time,
            on_event=self.stats.event,
            asked_for=sources.named_ids,
        )
        for worker_id, url in sources.urls:
            self._pool.expect(worker_id, url)
        dispatcher = Dispatcher(self._pool, self._line, rules=rules, clock=clock, random=random)
        self._match = dispatcher.match
        self._watch = HealthMonitor(
            self._pool, self._links, sources, status_dir / "status.json", clock=clock, on_change=dispatcher.match
        )
        self.calls = RemoteExecutor(
            Surroundings(
                pool=self._pool,
                dispatcher=dispatcher,
                links=self._links,
                estimator=CostModel(self._pool.reference),
                budget=RetryBudget(rules, clock),
                board=self.stats,
                rules=rules,
                clock=clock,
                is_gone=self._watch.is_gone,
            )
        )

    async def live(self) -> None:
        """Look after the workers until cancelled; the door opens at once, since requests may wait for a worker."""
        self._pool.restore_admin(self._admin_file.read())
        try:
            await self._watch.look()
            self._door.open(Pipeline(self.calls))
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._watch.run(), name="watch")
                tasks.create_task(self._tick(), name="board")
        finally:
            await self._links.keep(())

    def snapshot(self) -> Snapshot:
        """The whole service at this moment."""
        rows = self._pool.rows()
        return Snapshot(
            time=time.time(),
            state="draining" if self._door.state == "draining" else self._pool.state(),
            policy=self._policy,
            asked_for=self._pool.num_asked_for,
            ready=self._pool.num_ready,
            waiting=len(self._line),
            waiting_work_s=self._line.work_s,
            in_flight=sum(row.in_flight for row in rows),
            requests=self.stats.num_requests,
            failures=self.stats.num_failures,
            version=__version__,
            workers=rows,
        )

    def set_admin(self, worker_id: str, state: AdminState, *, force: bool) -> None:
        """A person's word about a worker, kept over restarts. Raises UnknownWorker, LastWorker, StatusUnwritable."""
        before = self._pool.admin_states()
        self._pool.set_admin(worker_id, state, force=force)
        try:
            self._admin_file.write(self._pool.admin_states())
        except StatusUnwritable:
            self._pool.restore_admin(before)
            raise
        if state == "maint":
            self.calls.call_off(worker_id)
        self._match()

    def health(self) -> Health:
        """ok with all workers, degraded with fewer, a refusal with none."""
        shown = self.snapshot()
        record: dict[str, object] = {
            "state": shown.state,
            "ready": shown.ready,
            "asked_for": shown.asked_for,
            "waiting": shown.waiting,
            "policy": shown.policy,
            "version": shown.version,
            "workers": {row.id: row.health if row.admin == "ready" else row.admin for row in shown.workers},
        }
        return Health(record, self._refusal(shown))

    def _refusal(self, shown: Snapshot) -> QwenAioError | None:
        if self._door.refusal is not None:
            return self._door.refusal
        if shown.ready:
            return None
        return NoWorker(self._pool.absence(), retry_after_s=5)

    async def _tick(self) -> None:
        while True:
            if self._door.state == "draining":
                self.stats.close()
            self.stats.tick(self.snapshot())
            await asyncio.sleep(TICK_S)
