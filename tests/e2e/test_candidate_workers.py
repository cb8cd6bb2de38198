"""Candidates' workers, with the bundled model: started both ways, and gone afterwards."""

from __future__ import annotations

import asyncio
import sys
from argparse import Namespace
from contextlib import aclosing

import psutil
import pytest

from qwen_aio.client.async_client import AsyncClient
from qwen_aio.errors import SetupError
from qwen_aio.models.find import BUNDLED
from qwen_aio.tuning.candidates import CandidateWorkers
from qwen_aio.tuning.halving import Candidate
from tests.campaign import only_in_campaign
from tests.e2e.clusters import wait_gone

pytestmark = pytest.mark.timeout(300)
can_fork = pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux alone")
TWO = Candidate(2, 1, "fp32", 64)


@pytest.fixture
def typed(tmp_path, monkeypatch) -> Namespace:
    monkeypatch.setenv("QWEN_AIO_HOME", str(tmp_path))
    return Namespace(config=None, model="bundled", kv_mb="32")


async def records(urls: list[str]) -> list[dict[str, object]]:
    found = []
    for url in urls:
        async with AsyncClient(url) as client:
            found.append(await client.health())
    return found


@pytest.mark.parametrize("forks", [pytest.param(True, marks=can_fork), False])
async def test_all_workers_are_ready_and_golden_cases_are_run_once(typed, tmp_path, forks):
    processes: list[psutil.Process] = []
    goldens: list[list[set[str]]] = []
    async with aclosing(CandidateWorkers(typed, folder=tmp_path, forks=forks)) as candidates:
        for _ in range(2):
            async with candidates.workers(TWO) as urls:
                health = await records(urls)
                assert [record["state"] for record in health] == ["ready", "ready"]
                processes += [psutil.Process(record["pid"]) for record in health]
                goldens.append([{outcome.split()[0] for outcome in record["golden"].values()} for record in health])
            wait_gone(processes)
        parents = set(psutil.Process().children())
    wait_gone(parents)
    assert goldens == [[{"ok"}, {"off"}], [{"off"}, {"off"}]]


@pytest.mark.parametrize("forks", [pytest.param(True, marks=can_fork), False])
async def test_a_precision_that_fails_is_tried_twice(typed, tmp_path, forks):
    before = psutil.Process().children()
    async with aclosing(CandidateWorkers(typed, folder=tmp_path, forks=forks)) as candidates:
        for number in (1, 2):
            with pytest.raises(SetupError, match="precision"):
                async with candidates.workers(Candidate(number, 1, "int3", 64)):
                    pass
            assert psutil.Process().children() == before
        with pytest.raises(SetupError, match="precision"):
            async with (
                asyncio.timeout(0),
                candidates.workers(Candidate(4, 1, "int3", 64)),
            ):  # starting any would take time
                pass


@only_in_campaign
async def test_one_accident_leaves_a_precision_its_second_try(typed, tmp_path):
    typed.model = str(tmp_path / "model")
    async with aclosing(CandidateWorkers(typed, folder=tmp_path, forks=False)) as candidates:
        with pytest.raises(SetupError, match="no model folder"):
            async with candidates.workers(TWO):
                pass
        (tmp_path / "model").symlink_to(BUNDLED)
        async with candidates.workers(TWO) as urls:
            assert len(await records(urls)) == 2


@can_fork
@only_in_campaign
async def test_a_fork_server_that_was_killed_fails_one_candidate(typed, tmp_path):
    before = psutil.Process().children()
    async with aclosing(CandidateWorkers(typed, folder=tmp_path, forks=True)) as candidates:
        async with candidates.workers(TWO):
            (server,) = set(psutil.Process().children()) - set(before)
        server.kill()
        with pytest.raises(SetupError):
            async with candidates.workers(TWO):
                pass
        async with candidates.workers(TWO) as urls:
            assert len(await records(urls)) == 2
