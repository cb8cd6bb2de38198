"""Schemathesis tries every described route of both programs with good and bad data: no 5xx, no undocumented answer.

A minute at most; `make campaign` takes ten.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from qwen_aio.serving.access.key_ring import KeyRing
from tests.balancer.balanced import balanced
from tests.campaign import CAMPAIGN
from tests.fakes import FakeEngine
from tests.keys import SECRETS, file_of_keys
from tests.openapi import PROGRAMS, document_of, operations
from tests.served import Worker, served

CONFIG = Path("tests/schemathesis.toml").resolve()
EFFORT = ("--max-time", "150") if CAMPAIGN else ("--max-examples", "6", "--seed", "1")


@asynccontextmanager
async def worker(folder: Path, *, with_keys: bool) -> AsyncIterator[str]:
    keys = KeyRing(file_of_keys(folder).path if with_keys else None)
    async with served(Worker(FakeEngine(), keys=keys)) as server:
        yield server.url


@asynccontextmanager
async def balancer(folder: Path, *, with_keys: bool) -> AsyncIterator[str]:
    keys = KeyRing(file_of_keys(folder).path if with_keys else None)
    async with served(Worker(FakeEngine())) as one, served(Worker(FakeEngine(), worker_id="qwen-2")) as other:
        workers = (f"qwen-1={one.url}", f"qwen-2={other.url}")
        async with balanced({}, folder, keys=keys, workers=workers) as service:
            await service.until_ready(2)
            yield service.url


@pytest.mark.parametrize("with_keys", [False, True], ids=["open", "keys"])
@pytest.mark.parametrize("program", PROGRAMS)
async def test_no_5xx_and_no_undocumented_answer(program, with_keys, tmp_path):
    key = [f"--header=Authorization: Bearer {SECRETS['admin']}"] if with_keys else []
    document = await document_of(program)
    if not with_keys:
        for _, _, operation in operations(document):
            operation["security"] = []  # an open server asks for no key
    described = tmp_path / "openapi.json"
    described.write_text(json.dumps(document), encoding="utf-8")
    serving = {"worker": worker, "balancer": balancer}[program]
    async with serving(tmp_path, with_keys=with_keys) as url:
        await run(tmp_path, "run", str(described), "--url", url, *key)


async def run(folder: Path, *arguments: str) -> None:
    """Raises AssertionError with all that was found; what schemathesis keeps between runs goes with `folder`."""
    trying = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), *arguments),
        # /events never ends; tests/balancer/test_dashboard.py reads it.
        *("--exclude-path", "/events", "--no-color", *EFFORT),
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await trying.communicate()
    finally:
        if trying.returncode is None:
            trying.kill()
            await trying.wait()
    assert trying.returncode == 0, output.decode()
    (generated,) = re.findall(rb"(\d+) generated", output)
    assert int(generated) > 1000
