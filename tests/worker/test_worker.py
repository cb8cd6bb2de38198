"""One worker put together, with an engine that fails: every request fails, and the process."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from qwen_aio.config import load_settings
from qwen_aio.core import ContextLimits
from qwen_aio.engine.config import EngineLimits
from qwen_aio.engine.requests import Counters
from qwen_aio.engine.service import EngineService
from qwen_aio.models.find import ModelFolder
from qwen_aio.serving.transport.server import bind
from qwen_aio.startup.service_manager import ServiceManager
from qwen_aio.tasks.loader import load_tasks
from qwen_aio.worker.loading import LoadedEngine
from qwen_aio.worker.precision_record import PrecisionRecord
from qwen_aio.worker.worker import WorkerServer

TASKS = load_tasks(Path("prompts"))


class DyingEngine:
    """Takes work, and breaks when it computes."""

    limits = EngineLimits()
    context = ContextLimits(2048, 1024)
    counters = Counters()
    has_work = False

    def clock(self) -> float:
        return 0.0

    def add(self, request_id: str, work: object, *, arrived_s: float) -> None:
        self.has_work = True

    def abort(self, request_id: str) -> None:
        pass

    def step(self) -> list[object]:
        raise MemoryError("no memory for this step")


@asynccontextmanager
async def load_dying(*_: object, **__: object) -> AsyncIterator[LoadedEngine]:
    engine = EngineService(DyingEngine())
    engine.start()
    try:
        yield LoadedEngine(engine, "sha", {}, PrecisionRecord("fp32", "asked for"), "plain")
    finally:
        await engine.close()


async def test_when_the_engine_fails_all_requests_fail_and_the_process_ends(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (model / name).write_text("{}")
    settings = load_settings({"id": "doomed", "status_dir": str(tmp_path / "status")})
    sock = bind("127.0.0.1", 0)
    url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    folder = ModelFolder(model, "fake", False, "asked for")
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listening.bind(str(tmp_path / "notify"))
    manager = ServiceManager(listening.getsockname())
    worker = WorkerServer(settings, TASKS, folder, sock=sock, threads=1, load=load_dying, manager=manager)
    running = asyncio.ensure_future(worker.run())
    async with aiohttp.ClientSession() as session:
        answers = await asyncio.gather(*(ask(session, url) for _ in range(3)))
    assert {(status, body["error"]["code"]) for status, body in answers} == {(503, "engine_stopped")}
    with pytest.raises(MemoryError, match="no memory"):
        await running
    with listening:
        assert [listening.recv(100) for _ in range(2)] == [b"READY=1", b"STOPPING=1"]
    record = json.loads((tmp_path / "status" / "status.json").read_text())["workers"]["doomed"]
    assert (record["state"], record["precision"]) == ("failed", "fp32")


async def ask(session: aiohttp.ClientSession, url: str) -> tuple[int, dict]:
    """One decision; asked again while the worker is still starting."""
    while True:
        async with session.post(f"{url}/v1/run", json={"text": "hi", "mode": "sentiment"}) as response:
            body = await response.json()
        if body.get("error", {}).get("code") != "not_ready":
            return response.status, body
