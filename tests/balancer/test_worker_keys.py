"""Workers that need a key: the balancer sends its own, and one that is refused is its own fault, not the client's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from qwen_aio.client.async_client import AsyncClient
from qwen_aio.core import Request
from qwen_aio.errors import KeyRefused, NoWorker
from qwen_aio.serving.access.key_ring import KeyRing
from qwen_aio.serving.access.keys import KeyFile
from tests.balancer.balanced import Service, balanced
from tests.fakes import FakeEngine
from tests.keys import BAD, SECRETS, file_of_keys
from tests.served import Worker, served

REQUEST = Request("差评", mode="sentiment", request_id="r")


@asynccontextmanager
async def guarded(folder: Path, key: object) -> AsyncIterator[Service]:
    """A balancer that sends `key`, before one worker that needs a key."""
    keys = KeyRing(file_of_keys(folder).path)
    async with (
        served(Worker(FakeEngine(), worker_id="far", keys=keys)) as worker,
        balanced({}, folder, key=key, workers=(f"far={worker.url}",)) as service,
    ):
        yield service


async def test_the_balancers_own_key_lets_it_in(tmp_path):
    async with guarded(tmp_path, lambda: SECRETS["service"]) as service:
        await service.until_ready(1)
        assert (await service.client.run(REQUEST)).worker == "far"


@pytest.mark.parametrize("key", ["", BAD])
async def test_a_key_that_a_worker_refuses_is_said_where_operators_look(tmp_path, key):
    async with guarded(tmp_path, key) as service:
        await service.until(lambda: service.row("far").health == "down")
        assert "does not accept this balancer's key" in service.row("far").why


async def test_a_key_that_is_refused_later_is_no_fault_of_the_client(tmp_path):
    async with guarded(tmp_path, SECRETS["service"]) as service:
        await service.until_ready(1)
        KeyFile(tmp_path / "keys.json").revoke("service-1")
        with pytest.raises(NoWorker):
            await asyncio.wait_for(service.client.run(REQUEST), 30)


async def test_a_client_sends_its_key_and_hears_when_it_is_refused(tmp_path):
    keys = KeyRing(file_of_keys(tmp_path).path)
    async with served(Worker(FakeEngine(), keys=keys)) as worker:
        async with AsyncClient(worker.url, key=SECRETS["user"]) as client:
            assert (await client.run(REQUEST)).worker == "qwen-1" and await client.health()
            assert SECRETS["user"] not in repr(client)
        async with AsyncClient(worker.url) as stranger:
            for question in (stranger.run(REQUEST), stranger.health(), stranger.capabilities()):
                with pytest.raises(KeyRefused, match="Authorization: Bearer"):
                    await question
