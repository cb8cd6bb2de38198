"""One line of the log for each request, however it ends, and none for probes."""

from __future__ import annotations

import asyncio
import logging

import aiohttp
import pytest

from qwen_aio.errors import EngineStopped
from qwen_aio.serving.access.key_ring import KeyRing
from tests.fakes import FakeEngine
from tests.keys import BAD, bearer, file_of_keys
from tests.served import WatchedEngine, Worker, served

RUN, CHAT = "/v1/run", "/v1/chat/completions"
DECISION = {"text": "失望", "mode": "sentiment"}
SECRET = "a very private sentence"


@pytest.fixture
def lines(caplog):
    """What a log at the usual level has said of requests."""
    caplog.set_level(logging.INFO, logger="qwen_aio")
    return lambda: [record.getMessage() for record in caplog.records if " id=" in record.getMessage()]


async def post(url: str, path: str, body: object, **headers: str) -> int:
    sent = {"X-Request-ID": "r1", **headers}
    async with aiohttp.ClientSession(url) as client, client.post(path, json=body, headers=sent) as reply:
        await reply.read()
        return reply.status


@pytest.mark.parametrize(
    ("path", "body", "begins"),
    [
        (RUN, DECISION, "request done id=r1 task=sentiment"),
        (RUN, DECISION | {"stream": True}, "request done id=r1 task=sentiment"),
        (CHAT, {"messages": [{"role": "user", "content": "hi"}]}, "request done id=r1 task=chat"),
        ("/internal/call", {"task": "sentiment", "text": "a"}, "engine request id=r1 task=sentiment"),
        (RUN, {"text": 1}, f"request refused id=r1 method=POST path={RUN} status=400 code=invalid_request ms="),
        (
            RUN,
            DECISION | {"mode": "poem"},
            f"request refused id=r1 method=POST path={RUN} status=404 code=unknown_task",
        ),
        ("/v1/x", {}, "request refused id=r1 method=POST path=/v1/x status=404 code=unknown_path"),
        ("/health", {}, "request refused id=r1 method=POST path=/health status=405 code=method_not_allowed"),
    ],
)
async def test_a_request_is_one_line(path, body, begins, lines):
    async with served(Worker(FakeEngine())) as there:
        await post(there.url, path, body)
    [line] = lines()
    assert line.startswith(begins)


async def test_a_key_that_is_refused_is_a_line_without_it(lines, tmp_path):
    async with served(Worker(FakeEngine(), keys=KeyRing(file_of_keys(tmp_path).path))) as there:
        assert await post(there.url, RUN, {"text": SECRET}, **bearer(BAD)) == 401
    [line] = lines()
    assert "status=401 code=invalid_api_key" in line
    assert BAD not in line and SECRET not in line


async def test_a_stream_that_fails_is_a_line(lines):
    engine = FakeEngine(pieces=("a", "b"), error=EngineStopped("gone"), error_after=1)
    async with served(Worker(engine)) as there:
        await post(there.url, RUN, {"text": "a", "mode": "chat", "stream": True})
    assert lines() == ["stream ended early id=r1 code=engine_stopped"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_is_a_line(stream, lines):
    engine = WatchedEngine(gate=asyncio.Event())
    async with served(Worker(engine)) as there:
        asking = asyncio.ensure_future(post(there.url, RUN, {"text": "a", "mode": "chat", "stream": stream}))
        await engine.begun.wait()
        asking.cancel()
        await engine.freed.wait()
        await there.worker.gate.wait_empty()
    assert lines() == [f"client left id=r1 path={RUN}"]


async def test_probes_and_pages_are_no_lines(lines):
    async with served(Worker(FakeEngine())) as there, aiohttp.ClientSession(there.url) as client:
        for path in ("/livez", "/readyz", "/health", "/metrics", "/v1/tasks", "/v1/models"):
            async with client.get(path) as reply:
                assert reply.status == 200
    assert lines() == []


async def test_a_server_that_says_it_is_not_ready_refuses_nothing(lines):
    async with served(Worker(FakeEngine(), is_open=False)) as there, aiohttp.ClientSession(there.url) as client:
        for path in ("/readyz", "/health"):
            async with client.get(path) as reply:
                assert reply.status == 503
        assert lines() == []
        async with client.get("/health", headers={"Host": "elsewhere"}):
            pass
    [line] = lines()
    assert "path=/health" in line and "code=host_refused" in line


async def test_a_hostile_path_and_id_are_cut_and_replaced(lines):
    async with served(Worker(FakeEngine())) as there:
        assert await post(there.url, "/v1/" + "x" * 5000, {}, **{"X-Request-ID": "a b"}) == 404
    [line] = lines()
    assert len(line) < 400 and "id=a b" not in line
