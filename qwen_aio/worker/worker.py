"""One worker, put together: address, record in status.json, engine and application."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import KW_ONLY, dataclass, field
from functools import partial

from fastapi import FastAPI

from qwen_aio.config import Settings, status_dir
from qwen_aio.core import EngineRequest, ModelIdentity, Task
from qwen_aio.egress.guard import EgressGuard
from qwen_aio.engine.requests import EngineSnapshot
from qwen_aio.models.find import ModelFolder
from qwen_aio.result import Answer, Decision
from qwen_aio.serving.admission import AdmissionGate
from qwen_aio.serving.metrics import EgressMetrics, RequestMetrics
from qwen_aio.serving.pipeline import Pipeline
from qwen_aio.serving.transport.server import run_server
from qwen_aio.startup.exposure import key_ring, rate_limits
from qwen_aio.startup.listening import allowed_hosts, own_url, proxy_settings
from qwen_aio.startup.messages import say
from qwen_aio.startup.service_manager import ServiceManager
from qwen_aio.startup.tls import certificate
from qwen_aio.status.file import StatusFile
from qwen_aio.tasks.loader import tasks_hash
from qwen_aio.worker.app import create_worker_app
from qwen_aio.worker.execution.executor import LocalExecutor
from qwen_aio.worker.health import ProcessMeter, WorkerHealth
from qwen_aio.worker.heartbeat import Heartbeat
from qwen_aio.worker.loading import LoadedEngine, describe_model, loaded_engine

STATUS_LOCK_S = 2.0  # a heartbeat that cannot lock the file for so long is skipped

LoadEngine = Callable[..., AbstractAsyncContextManager[LoadedEngine]]  # as loading.loaded_engine
MakeApp = Callable[..., FastAPI]  # as app.create_worker_app
logger = logging.getLogger(__name__)


@dataclass
class WorkerServer:
    """One worker process, put together. Everything it owns ends with `run`."""

    settings: Settings
    tasks: Mapping[str, Task]
    model: ModelFolder
    _: KW_ONLY
    sock: socket.socket
    threads: int
    load: LoadEngine = loaded_engine
    make_app: MakeApp = create_worker_app
    manager: ServiceManager = field(default_factory=ServiceManager)
    egress: EgressGuard = field(default_factory=EgressGuard)
    _snapshot: Callable[[], EngineSnapshot] = field(default=EngineSnapshot, init=False)  # later, the engine's

    def __post_init__(self) -> None:
        self._metrics = RequestMetrics(
            running=lambda: self._snapshot().running, waiting=lambda: self._snapshot().queue_depth
        )
        self._metrics.registry.register(EgressMetrics(self.egress))

    async def run(self) -> int:
        """Load, serve, end. Raises SetupError for what an operator must mend."""
        status_file = StatusFile(status_dir(self.settings) / "status.json", lock_timeout_s=STATUS_LOCK_S)
        port = self.sock.getsockname()[1]
        url = own_url(self.settings, port)
        tls = certificate(self.settings)
        with status_file.claimed(self.settings.id or f"qwen-{port}", url=url) as first:
            meter = ProcessMeter(threads=self.threads)
            health = WorkerHealth(first, engine=lambda: self._snapshot(), meter=meter, egress=self.egress)
            gate = AdmissionGate(on_state=self.manager.tell)
            app = self._app(gate, health)
            say(describe_model(self.model), f"open {url}")
            heartbeat = Heartbeat(health, write=status_file.write, state=lambda: gate.state)
            async with heartbeat.beating():
                life = partial(self._live, gate, health)
                return await run_server(app, sock=self.sock, gate=gate, life=life, certificate=tls)

    async def _live(self, gate: AdmissionGate, health: WorkerHealth) -> None:
        """Load, open the gate, and wait for the engine to fail, which it should not."""
        name, own = self.model.name, health.latest
        kv_mb = self.settings.kv_mb or 0
        describe = partial(health.describe, model=name, kv_mb=kv_mb, tasks_sha=tasks_hash(self.tasks))
        describe(model_sha="", precision="", kernel="", golden={})
        async with self.load(self.settings, self.tasks, self.model, threads=self.threads) as ready:
            self._snapshot = ready.engine.snapshot
            executor = LocalExecutor(
                ready.engine,
                self.tasks,
                model=ModelIdentity(name, ready.sha, self.model.is_bundled),
                worker=own.id,
                record=partial(self._record, health),
                count=health.count,
            )
            if executor.safety_source == "words":
                logger.warning("safety: no thresholds for the model %s, so the word rule alone decides", ready.sha)
            describe(
                model_sha=ready.sha,
                precision=ready.precision_record.precision,
                kernel=ready.kernel,
                golden=ready.golden,
            )
            gate.open(Pipeline(executor))
            logger.info("ready worker=%s model=%s url=%s", own.id, name, own.url)
            raise await ready.engine.wait_failed()

    def _record(self, health: WorkerHealth, request: EngineRequest, outcome: Decision | Answer) -> None:
        task = self.tasks[request.task]
        health.record(task.kind, outcome.timings)
        self._metrics.observe(task, outcome, is_resumed=bool(request.resume))

    def _app(self, gate: AdmissionGate, health: WorkerHealth) -> FastAPI:
        return self.make_app(
            gate,
            status=lambda: health.latest,
            metrics=self._metrics.registry,
            keys=key_ring(self.settings),
            limits=rate_limits(self.settings),
            allowed_hosts=allowed_hosts(self.settings),
            proxy=proxy_settings(self.settings),
            allow_system_messages=self.settings.allow_system_messages,
        )
