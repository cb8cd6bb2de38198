"""One worker, put together: address, record in status.json, engine and application."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import TYPE_CHECKING

from fastapi import FastAPI

from qwen_aio.config import Settings, status_dir
from qwen_aio.core import Task
from qwen_aio.engine.requests import EngineSnapshot
from qwen_aio.models.find import ModelFolder
from qwen_aio.serving.admission import AdmissionGate
from qwen_aio.serving.pipeline import Pipeline
from qwen_aio.serving.server import run_server
from qwen_aio.startup.listening import allowed_hosts, proxy_settings, url_of
from qwen_aio.status_file import StatusFile
from qwen_aio.tasks.loader import tasks_hash
from qwen_aio.worker.app import create_worker_app
from qwen_aio.worker.executor import LocalExecutor
from qwen_aio.worker.health import ProcessMeter, WorkerHealth
from qwen_aio.worker.heartbeat import Heartbeat
from qwen_aio.worker.loading import LoadedEngine, describe_model, loaded_engine
from qwen_aio.worker_status import WorkerStatus

if TYPE_CHECKING:
    from qwen_aio.engine.service import EngineService

STATUS_LOCK_S = 2.0  # a heartbeat that cannot lock the file for so long is skipped

LoadEngine = Callable[..., AbstractAsyncContextManager[LoadedEngine]]  # as loading.loaded_engine
MakeApp = Callable[..., FastAPI]  # create_worker_app, but for what a page adds
AddPage = Callable[[MakeApp, AdmissionGate, str], FastAPI]
log = logging.getLogger(__name__)


class WorkerServer:
    """One worker process, put together. Everything it owns ends with `run`."""

    def __init__(
        self,
        settings: Settings,
        tasks: Mapping[str, Task],
        model: ModelFolder,
        *,
        sock: socket.socket,
        threads: int,
        load: LoadEngine = loaded_engine,
        add_page: AddPage | None = None,
    ) -> None:
        """`add_page` makes the application of single mode: the worker's own with a page on it."""
        port: int = sock.getsockname()[1]
        self._settings = settings
        self._tasks = tasks
        self._model = model
        self._sock = sock
        self._threads = threads
        self._load = load
        self._add_page = add_page
        self._id = settings.id or f"qwen-{port}"
        self._url = url_of(settings.host, port)
        self._engine: EngineService | None = None

    async def run(self) -> int:
        """Load, serve, end. Raises SetupError for what an operator must mend."""
        status_file = StatusFile(status_dir(self._settings) / "status.json", lock_timeout_s=STATUS_LOCK_S)
        with status_file.claimed(self._id, url=self._url) as first:
            health = self._health(first)
            gate = AdmissionGate()
            app = self._app(gate, health)
            print(f"{describe_model(self._model)}; open {self._url}", flush=True)
            heartbeat = Heartbeat(health, write=status_file.write, state=lambda: gate.state)
            async with heartbeat.beating():
                return await run_server(app, sock=self._sock, gate=gate, life=lambda: self._live(gate, health))

    async def _live(self, gate: AdmissionGate, health: WorkerHealth) -> None:
        """Load, open the gate, and wait for the engine to fail, which it should not."""
        tasks_sha = tasks_hash(self._tasks)
        health.describe(model=self._model.name, model_sha="", precision="", tasks_sha=tasks_sha, golden={})
        async with self._load(self._settings, self._tasks, self._model, threads=self._threads) as ready:
            self._engine = ready.engine
            executor = LocalExecutor(
                ready.engine, self._tasks, model=self._model.name, worker=self._id, record=health.record
            )
            health.describe(
                model=self._model.name,
                model_sha=ready.sha,
                precision=ready.precision_record.precision,
                tasks_sha=tasks_sha,
                golden=ready.golden,
            )
            gate.open(Pipeline(executor))
            log.info("ready worker=%s model=%s url=%s", self._id, self._model.name, self._url)
            raise await ready.engine.wait_failed()

    def _health(self, first: WorkerStatus) -> WorkerHealth:
        return WorkerHealth(
            first,
            engine=lambda: self._engine.snapshot() if self._engine else EngineSnapshot(),
            meter=ProcessMeter(threads=self._threads),
        )

    def _app(self, gate: AdmissionGate, health: WorkerHealth) -> FastAPI:
        create = partial(
            create_worker_app,
            gate,
            status=lambda: health.latest,
            allowed_hosts=allowed_hosts(self._settings),
            proxy=proxy_settings(self._settings),
        )
        return self._add_page(create, gate, self._id) if self._add_page else create()
