"""What the health monitor reports to the registry about local and remote workers."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict, replace
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from qwen_aio.balancer.workers.clients import WorkerClients
from qwen_aio.balancer.workers.discovery import Discovery, DnsName
from qwen_aio.balancer.workers.monitor import RESOLVE_PERIOD_S, HealthMonitor, Resolve
from qwen_aio.egress.peers import Peers
from qwen_aio.status.record import WorkerStatus
from tests.balancer.balanced import Service, balanced
from tests.balancer.world import World
from tests.fakes import FakeEngine
from tests.served import STATUS, Worker, served


def write(folder: Path, *statuses: WorkerStatus) -> None:
    folder.mkdir(exist_ok=True)
    content = json.dumps({"version": 1, "workers": {status.id: asdict(status) for status in statuses}})
    (folder / "next").write_text(content)
    (folder / "next").replace(folder / "status.json")


def ready(worker_id: str, url: str, **more: object) -> WorkerStatus:
    return replace(STATUS, id=worker_id, url=url, state="ready", capacity=8, **more)


async def until_shown(service: Service, worker_id: str, health: str) -> None:
    await service.until(lambda: any(row.id == worker_id for row in service.balancer.snapshot().workers))
    await service.until(lambda: service.row(worker_id).health == health)


async def test_a_worker_that_appears_in_the_file_is_served_once_it_answers(tmp_path):
    async with served(Worker(FakeEngine(), worker_id="new")) as worker, balanced({}, tmp_path) as service:
        write(tmp_path, ready("new", worker.url))
        await service.until_ready(1)
        assert (await service.client.capabilities()).tasks.keys() == {"sentiment", "chat", "safety", "summarize"}


async def test_the_record_of_a_dead_worker_makes_no_worker_ready(tmp_path):
    async with balanced({}, tmp_path) as service:
        write(tmp_path, ready("ghost", "http://127.0.0.1:1"))
        await until_shown(service, "ghost", "down")
        assert service.balancer.snapshot().ready == 0


async def test_an_address_that_another_worker_has_by_now_is_not_taken_for_the_first(tmp_path):
    async with served(Worker(FakeEngine(), worker_id="new")) as worker, balanced({}, tmp_path) as service:
        write(tmp_path, ready("old", worker.url))
        await until_shown(service, "old", "down")
        assert "new listens at its address" in service.row("old").why


LATER = {"generation": 7, "start_time": 3e9, "pid": 7}


@pytest.mark.parametrize(("before", "after"), [(LATER, {}), ({}, LATER)])
async def test_a_worker_that_comes_back_at_another_address_is_found_there_however_old_it_looks(tmp_path, before, after):
    first, second = (replace(STATUS, **more) for more in (before, after))
    async with balanced({}, tmp_path) as service, served(Worker(FakeEngine(), worker_id="w", status=second)) as new:
        async with served(Worker(FakeEngine(), worker_id="w", status=first)) as old:
            write(tmp_path, ready("w", old.url, **before))
            await service.until_ready(1)
            write(tmp_path, ready("w", new.url, **after))  # both are there for a while
            await service.until(lambda: new.worker.status.seq > second.seq)
            assert service.row("w").url == old.url
        await service.until(lambda: service.row("w").url == new.url)
        await service.until_ready(1)


@pytest.mark.parametrize(("before", "after"), [(LATER, {}), ({}, LATER)])
async def test_another_process_at_the_address_of_a_worker_is_its_next_process(tmp_path, before, after):
    worker = Worker(FakeEngine(), worker_id="w", status=replace(STATUS, **before))
    async with served(worker) as place, balanced({}, tmp_path) as service:
        write(tmp_path, ready("w", place.url, **before))
        await service.until_ready(1)
        worker.status = replace(STATUS, **after)
        write(tmp_path, ready("w", place.url, **after))
        await service.until(lambda: service.row("w").generation == worker.status.generation)
        await service.until_ready(1)


async def test_only_workers_that_were_asked_for_are_taken_from_the_file(tmp_path):
    write(tmp_path, ready("near", "http://127.0.0.1:1"))
    async with balanced({"far": FakeEngine()}, tmp_path) as service:
        assert [row.id for row in service.balancer.snapshot().workers] == ["far"]


async def test_a_remote_worker_that_hangs_delays_no_other(tmp_path):
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


async def test_a_file_that_cannot_be_read_is_counted_and_workers_that_answer_stay(tmp_path):
    async with served(Worker(FakeEngine(), worker_id="w")) as worker, balanced({}, tmp_path) as service:
        write(tmp_path, ready("w", worker.url))
        await service.until_ready(1)
        (tmp_path / "status.json").write_text("{")
        async with aiohttp.ClientSession() as session:
            for _ in range(3):
                async with session.post(f"{service.url}/v1/run", json={"text": "hi"}) as response:
                    assert response.status == 200
        assert service.row("w").health == "up"


@pytest.mark.parametrize("worker_id", ["²", "9" * 5000, "<b>x</b>", "../admin", "a/b", "a\nb", "", " ", "é", "x" * 65])
async def test_an_id_that_no_worker_can_have_is_not_taken_from_the_file(tmp_path, worker_id):
    async with served(Worker(FakeEngine(), worker_id="fine")) as worker, balanced({}, tmp_path) as service:
        write(tmp_path, ready(worker_id, worker.url), ready("fine", worker.url))
        await service.until_ready(1)
        assert [row.id for row in service.balancer.snapshot().workers] == ["fine"]


@pytest.mark.parametrize(
    "url",
    ["http://", "http://[", "http://127.0.0.1:99999", "http://a..b", "http://" + "a" * 300, "http://\0", "http://?"],
)
async def test_an_address_that_is_none_harms_only_the_worker_that_gave_it(tmp_path, url):
    async with served(Worker(FakeEngine(), worker_id="fine")) as worker, balanced({}, tmp_path) as service:
        write(tmp_path, ready("odd", url), ready("fine", worker.url))
        await service.until_ready(1)
        await until_shown(service, "odd", "down")
        assert service.row("fine").health == "up"


class Monitoring:
    """A monitor of the addresses of a name, over a registry with a clock that stands still."""

    def __init__(self, folder: Path, resolve: Resolve) -> None:
        self.world = World()
        self.clients = WorkerClients(Peers())
        discovery = Discovery.parse(["dns:workers.local:7861"])
        more = {"clock": self.world.clock, "on_change": lambda: None, "resolve": resolve}
        self.monitor = HealthMonitor(self.world.registry, self.clients, discovery, folder / "status.json", **more)

    async def __aenter__(self) -> Monitoring:
        self.running = asyncio.create_task(self.monitor.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.running.cancel()
        await asyncio.wait({self.running})
        await self.clients.keep(())

    @property
    def ids(self) -> list[str]:
        return [row.id for row in self.world.registry.rows()]


async def test_addresses_of_a_name_are_followed(tmp_path):
    found = [["127.0.0.1"], ["127.0.0.1", "127.0.0.2"]]

    async def resolve(_: DnsName) -> list[str]:
        return found.pop(0)

    async with Monitoring(tmp_path, resolve) as monitoring:
        while monitoring.ids != ["127.0.0.1-7861"]:
            await monitoring.monitor.check()
        for _ in range(3):  # what was found a moment ago is not looked up again
            await monitoring.monitor.check()
        assert len(found) == 1
        monitoring.world.clock.advance(RESOLVE_PERIOD_S)
        while monitoring.ids != ["127.0.0.1-7861", "127.0.0.2-7861"]:
            await monitoring.monitor.check()
        assert not found


async def test_a_name_server_that_hangs_delays_no_worker(tmp_path):
    asked = asyncio.Event()

    async def resolve(_: DnsName) -> list[str]:
        asked.set()
        await asyncio.Event().wait()
        return []

    async with Monitoring(tmp_path, resolve) as monitoring:
        await asked.wait()
        for _ in range(3):
            monitoring.world.clock.advance(RESOLVE_PERIOD_S)
            await monitoring.monitor.check()
        assert monitoring.ids == []


@pytest.mark.parametrize("error", [OSError("no such name"), UnicodeError("label empty or too long")])
async def test_a_name_that_cannot_be_resolved_keeps_its_last_addresses(tmp_path, error):
    found = [["127.0.0.1"]]

    async def resolve(_: DnsName) -> list[str]:
        if not found:
            raise error
        return found.pop()

    async with Monitoring(tmp_path, resolve) as monitoring:
        for _ in range(3):
            await monitoring.monitor.check()
            monitoring.world.clock.advance(RESOLVE_PERIOD_S)
        assert monitoring.ids == ["127.0.0.1-7861"]
        assert not monitoring.running.done()
