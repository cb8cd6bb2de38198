"""What the watch tells the pool about workers near and far."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict, replace
from pathlib import Path

import aiohttp
from aiohttp import web

from qwen_aio.core import WorkerStatus
from tests.balancer.balanced import Service, balanced
from tests.fakes import FakeEngine
from tests.served import STATUS, Worker, served


def write(folder: Path, *statuses: WorkerStatus) -> None:
    folder.mkdir(exist_ok=True)
    content = json.dumps({"version": 1, "workers": {status.id: asdict(status) for status in statuses}})
    (folder / "next").write_text(content)
    (folder / "next").replace(folder / "status.json")


def ready(worker_id: str, url: str, **more: object) -> WorkerStatus:
    return replace(STATUS, id=worker_id, url=url, state="ready", capacity=8, **more)


async def until_told(service: Service, worker_id: str, health: str) -> None:
    await service.until(lambda: any(row.id == worker_id for row in service.balancer.snapshot().workers))
    await service.until(lambda: service.row(worker_id).health == health)


async def test_a_worker_that_appears_in_the_file_is_served_once_it_answers(tmp_path):
    async with served(Worker(FakeEngine(), worker_id="new")) as worker, balanced({}, tmp_path) as service:
        write(tmp_path, ready("new", worker.url))
        await service.until_ready(1)
        assert (await service.client.tasks()).keys() == {"sentiment", "chat", "summarize"}


async def test_the_record_of_a_dead_worker_makes_nobody_ready(tmp_path):
    async with balanced({}, tmp_path) as service:
        write(tmp_path, ready("ghost", "http://127.0.0.1:1"))
        await until_told(service, "ghost", "down")
        assert service.balancer.snapshot().ready == 0


async def test_an_address_that_another_worker_has_by_now_is_not_taken_for_the_first(tmp_path):
    async with served(Worker(FakeEngine(), worker_id="new")) as worker, balanced({}, tmp_path) as service:
        write(tmp_path, ready("old", worker.url))
        await until_told(service, "old", "down")
        assert "new listens at its address" in service.row("old").why


async def test_only_those_who_were_asked_for_are_taken_from_the_file(tmp_path):
    write(tmp_path, ready("near", "http://127.0.0.1:1"))
    async with balanced({"far": FakeEngine()}, tmp_path) as service:
        assert [row.id for row in service.balancer.snapshot().workers] == ["far"]


async def test_a_worker_elsewhere_that_hangs_delays_nobody(tmp_path):
    held = asyncio.Event()

    async def hang(_: web.Request) -> web.Response:
        await held.wait()
        return web.Response()

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", hang)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        write(tmp_path, ready("hung", f"http://127.0.0.1:{port}"))
        async with balanced({}, tmp_path) as service, served(Worker(FakeEngine(), worker_id="fine")) as worker:
            write(tmp_path, ready("hung", f"http://127.0.0.1:{port}"), ready("fine", worker.url))
            await service.until_ready(1)
            assert service.row("fine").health == "up"
    finally:
        held.set()
        await runner.cleanup()


async def test_a_file_that_cannot_be_read_is_counted_and_those_who_answer_stay(tmp_path):
    async with served(Worker(FakeEngine(), worker_id="w")) as worker, balanced({}, tmp_path) as service:
        write(tmp_path, ready("w", worker.url))
        await service.until_ready(1)
        (tmp_path / "status.json").write_text("{")
        async with aiohttp.ClientSession() as session:
            for _ in range(3):
                async with session.post(f"{service.url}/v1/run", json={"text": "hi"}) as response:
                    assert response.status == 200
        assert service.row("w").health == "up"
