"""A worker's application over a real socket, with a fake engine behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from fastapi import FastAPI

from qwen_aio.core import EngineRequest
from qwen_aio.result import Answer, Decision
from qwen_aio.serving.access.key_ring import KeyRing
from qwen_aio.serving.access.limits import NO_LIMITS, RateLimits
from qwen_aio.serving.admission import AdmissionGate
from qwen_aio.serving.app import NO_KEYS
from qwen_aio.serving.metrics import RequestMetrics
from qwen_aio.serving.pipeline import Pipeline
from qwen_aio.serving.sse import STREAM_TIMES, StreamTimes
from qwen_aio.serving.transport.connection import Patience
from qwen_aio.serving.transport.listener import Room
from qwen_aio.serving.transport.server import PATIENCE, bind, run_server
from qwen_aio.serving.transport.tls import Certificate
from qwen_aio.status.record import WorkerStatus
from qwen_aio.tasks.loader import load_tasks
from qwen_aio.worker.app import create_worker_app
from qwen_aio.worker.execution.executor import LocalExecutor
from tests.fakes import FAKE_MODEL, FakeEngine

TASKS = load_tasks(Path("prompts"))
STATUS = WorkerStatus("qwen-1", "http://127.0.0.1:1", 1, 1.0, 1, 1, "starting", golden={"sentiment": "ok"})


class WatchedEngine(FakeEngine):
    """Tells when work has begun and when it was given up, so that no test has to guess how long that takes."""

    def __init__(self, **more) -> None:
        super().__init__(**more)
        self.begun = asyncio.Event()
        self.freed = asyncio.Event()

    async def _wait(self, wait) -> None:
        self.begun.set()
        try:
            await super()._wait(wait)
        finally:
            self.freed.set()


class HeldAnswer(WatchedEngine):
    """Decides at once; only an answer waits for the gate."""

    async def score(self, *asked, **more):
        gate, self.gate = self.gate, None
        try:
            return await super().score(*asked, **more)
        finally:
            self.gate = gate


@dataclass
class Worker:
    """One worker without a process; `recorded` is what health and metrics got."""

    engine: FakeEngine
    is_open: bool = True
    worker_id: str = "qwen-1"
    status: WorkerStatus = STATUS
    allowed_hosts: tuple[str, ...] = ()
    times: StreamTimes = STREAM_TIMES
    allow_system_messages: bool = False
    keys: KeyRing = NO_KEYS
    limits: RateLimits = NO_LIMITS
    recorded: list[tuple[EngineRequest, Decision | Answer]] = field(default_factory=list)
    counted: list[str] = field(default_factory=list)
    gate: AdmissionGate = field(init=False)
    executor: LocalExecutor = field(init=False)
    app: FastAPI = field(init=False)

    def __post_init__(self) -> None:
        self.gate = AdmissionGate()
        self.metrics = RequestMetrics(running=lambda: self.engine.open_streams, waiting=lambda: 0)
        self.executor = LocalExecutor(
            self.engine,
            TASKS,
            model=FAKE_MODEL,
            worker=self.worker_id,
            record=self.record,
            count=self.counted.append,
        )
        self.app = create_worker_app(
            self.gate,
            status=self.next_status,
            metrics=self.metrics.registry,
            allowed_hosts=self.allowed_hosts,
            times=self.times,
            allow_system_messages=self.allow_system_messages,
            keys=self.keys,
            limits=self.limits,
        )
        if self.is_open:
            self.open()

    def next_status(self) -> WorkerStatus:
        self.status = replace(self.status, id=self.worker_id, seq=self.status.seq + 1, capacity=8, model_sha="sha")
        return self.status

    def record(self, request: EngineRequest, outcome: Decision | Answer) -> None:
        self.recorded.append((request, outcome))
        self.metrics.observe(TASKS[request.task], outcome, is_resumed=bool(request.resume))

    def open(self) -> None:
        self.gate.open(Pipeline(self.executor))


@dataclass
class Served:
    """Where a worker listens, and the task that serves it; its result is the exit code."""

    worker: Worker
    port: int
    serving: asyncio.Task[int]
    failure: asyncio.Future[None]  # give it an exception: the engine fails
    connections: list[asyncio.StreamWriter] = field(default_factory=list)  # a writer that nobody holds hangs up

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@asynccontextmanager
async def served(
    worker: Worker,
    *,
    grace_s: float = 30.0,
    patience: Patience = PATIENCE,
    room: Room | None = None,
    certificate: Certificate | None = None,
) -> AsyncIterator[Served]:
    sock = bind("127.0.0.1", 0)
    failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def live() -> None:
        await asyncio.shield(failure)

    serving = asyncio.create_task(
        run_server(
            worker.app,
            sock=sock,
            gate=worker.gate,
            life=live,
            grace_s=grace_s,
            patience=patience,
            room=room,
            certificate=certificate,
        )
    )
    try:
        yield Served(worker, sock.getsockname()[1], serving, failure)
    finally:
        serving.cancel()
        await asyncio.wait({serving})
        failure.cancel()
        sock.close()
