"""Forked workers with a model of 170 MB, 63 MB in int8: one copy for all, and each computes as if it had its own.

What a page of memory costs is in /proc: "private" is what a process has alone, "shared dirty" what it has written or
got from a parent that wrote it, and shares with that parent.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import save_file

from qwen_aio.client.async_client import AsyncClient
from qwen_aio.cluster.child import Process
from qwen_aio.cluster.forkserver_client import ForkServerClient
from qwen_aio.cluster.lifeline import Lifeline
from qwen_aio.cluster.protocol import WorkerSpec
from qwen_aio.config import load_settings
from qwen_aio.core import Request
from qwen_aio.errors import ServerUnreachable
from qwen_aio.models.find import BUNDLED
from qwen_aio.result import Result
from qwen_aio.worker.loading import choose_model, records_of
from tests.campaign import in_campaign
from tests.e2e.clusters import wait_gone
from tests.e2e.processes import free_port

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
    pytest.mark.timeout(300),
]
HIDDEN, MLP, LAYERS = 512, 1408, 12
MOST_PRIVATE_MB = 85  # half of what the model takes in fp32


@pytest.fixture(params=["auto", *in_campaign("fp32", "int8")])
def precision(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """In a home of its own, where nothing is remembered: the fork server prepares it."""
    monkeypatch.setenv("QWEN_AIO_HOME", str(tmp_path))
    return str(request.param)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model with the bundled one's tokenizer, far larger than what a worker needs besides."""
    folder = tmp_path_factory.mktemp("large")
    config = json.loads((BUNDLED / "config.json").read_text())
    shape = {"hidden_size": HIDDEN, "intermediate_size": MLP, "num_hidden_layers": LAYERS}
    config |= shape | {"num_attention_heads": 8, "num_key_value_heads": 8}
    (folder / "config.json").write_text(json.dumps(config))
    shutil.copy(BUNDLED / "tokenizer.json", folder)
    save_file(random_weights(config["vocab_size"]), folder / "model.safetensors")
    return folder


def random_weights(vocab: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)

    def matrix(rows: int, columns: int) -> torch.Tensor:
        return (torch.randn(rows, columns, generator=generator) * 0.02).to(torch.bfloat16)

    weights = {"model.embed_tokens.weight": matrix(vocab, HIDDEN), "model.norm.weight": torch.ones(HIDDEN)}
    for layer in (f"model.layers.{number}" for number in range(LAYERS)):
        for norm in ("input_layernorm", "post_attention_layernorm"):
            weights[f"{layer}.{norm}.weight"] = torch.ones(HIDDEN)
        for name in "qkvo":
            weights[f"{layer}.self_attn.{name}_proj.weight"] = matrix(HIDDEN, HIDDEN)
        for name in "qkv":
            weights[f"{layer}.self_attn.{name}_proj.bias"] = torch.zeros(HIDDEN)
        weights[f"{layer}.mlp.gate_proj.weight"] = matrix(MLP, HIDDEN)
        weights[f"{layer}.mlp.up_proj.weight"] = matrix(MLP, HIDDEN)
        weights[f"{layer}.mlp.down_proj.weight"] = matrix(HIDDEN, MLP)
    return weights


def size_mb(precision: str) -> float:
    """In memory; the embedding is small enough to stay in fp32."""
    embedding = json.loads((BUNDLED / "config.json").read_text())["vocab_size"] * HIDDEN
    layers = LAYERS * (4 * HIDDEN * HIDDEN + 3 * HIDDEN * MLP)
    return (4 * embedding + layers * (4 if precision == "fp32" else 1)) / 2**20


class Forks:
    """A fork server with a real model, and its workers by port."""

    def __init__(self, checkpoint: Path, precision: str) -> None:
        settings = ("--model", str(checkpoint), "--precision", precision, "--golden", "off", "--kv-mb", "32")
        self.log: list[str] = []
        self.client = ForkServerClient(
            [sys.executable, "-m", "qwen_aio.cli.forkserver", *settings], lifeline=Lifeline()
        )
        self.processes: list[Process] = []

    async def fork(self, worker_id: str, port: int) -> Process:
        self.processes.append(await self.client.fork(WorkerSpec(worker_id, port, 2), self.log.append))
        await self._ready(port)
        return self.processes[-1]

    async def ask(self, port: int) -> Result:
        async with AsyncClient(f"http://127.0.0.1:{port}") as client:
            return await client.run(Request("快递太慢了,差评!", mode="sentiment", request_id="test"))

    async def pid(self, port: int) -> int:
        async with AsyncClient(f"http://127.0.0.1:{port}") as client:
            return int((await client.health())["pid"])

    async def _ready(self, port: int) -> None:
        while True:
            async with AsyncClient(f"http://127.0.0.1:{port}") as client:
                try:
                    if (await client.health())["state"] == "ready":
                        return
                except ServerUnreachable:
                    pass
            await asyncio.sleep(0.05)


@asynccontextmanager
async def forks(checkpoint: Path, precision: str) -> AsyncIterator[Forks]:
    own = Forks(checkpoint, precision)
    own.processes.append(await own.client.start(own.log.append))
    try:
        yield own
    finally:
        for process in own.processes:
            process.kill()
        for process in own.processes:
            await process.ended()


async def test_workers_share_one_copy_of_the_weights(checkpoint, precision):
    ports = [free_port(), free_port()]
    async with forks(checkpoint, precision) as own:
        for number, port in enumerate(ports, start=1):
            await own.fork(f"qwen-{number}", port)
        answers = [await own.ask(port) for port in ports]
        memory = [memory_mb(await own.pid(port)) for port in ports]
        model_mb = size_mb(precision)
        for worker in memory:
            assert worker["Rss"] > model_mb
            assert worker["Shared_Dirty"] > model_mb, memory
            assert worker["Private_Dirty"] + worker["Private_Clean"] < MOST_PRIVATE_MB, memory
        assert answers[0].decision.scores == answers[1].decision.scores


async def test_a_fork_server_has_no_thread_that_a_fork_would_lose(checkpoint, precision):
    port = free_port()
    async with forks(checkpoint, precision) as own:
        await own.fork("qwen-1", port)
        server = psutil.Process(await own.pid(port)).parent()
        assert server is not None
        assert server.num_threads() == 2  # its own, and the one that waits for the cluster's end


async def test_a_fork_that_was_killed_is_replaced_by_one_that_answers_the_same(checkpoint, precision):
    ports = [free_port(), free_port()]
    async with forks(checkpoint, precision) as own:
        killed, other = [await own.fork(f"qwen-{number}", port) for number, port in enumerate(ports, start=1)]
        before, pid = await own.ask(ports[0]), await own.pid(ports[1])
        killed.kill()
        await killed.ended()
        assert (await own.ask(ports[1])).decision.scores == before.decision.scores
        await own.fork("qwen-1", ports[0])
        assert (await own.ask(ports[0])).decision.scores == before.decision.scores
        assert await own.pid(ports[1]) == pid
        other.terminate()
        assert await other.ended() == 0


async def test_a_fork_server_that_is_killed_takes_along_the_process_that_prepares_for_it(
    checkpoint, tmp_path, monkeypatch
):
    monkeypatch.setenv("QWEN_AIO_HOME", str(tmp_path))
    settings = load_settings({"model": str(checkpoint), "precision": "int8"})
    records, waits = records_of(settings, choose_model(settings)), asyncio.Event()
    own = Forks(checkpoint, "int8")
    with records.alone():  # so that it does not come to an end by itself
        server = await own.client.start(lambda line: waits.set() if "waiting for another process" in line else None)
        try:
            await waits.wait()
            children = psutil.Process().children(recursive=True)
            [preparing] = [child for child in children if "qwen_aio.cli.prepare_weights" in child.cmdline()]
        finally:
            server.kill()
        await server.ended()
        assert not records.weights.path.exists()
        wait_gone([preparing])


def memory_mb(pid: int) -> dict[str, float]:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return {name: int(kb) / 1024 for name, kb in re.findall(r"^(\w+):\s+(\d+) kB", lines, re.MULTILINE)}
