"""OpenAI's routes of a balancer: real sockets, fake engines."""

import asyncio
import json

import aiohttp

from tests.balancer.balanced import balanced
from tests.fakes import FakeEngine, user_text

PIECES = tuple("从前有一座山,山里有一座庙。")
BODY = {"messages": [{"role": "user", "content": "Ｈi"}], "stream": True, "logprobs": True}


async def test_a_stream_survives_the_death_of_its_worker(tmp_path):
    gates = {name: asyncio.Event() for name in "ab"}
    engines = {name: FakeEngine(gate=gate, pieces=PIECES) for name, gate in gates.items()}
    async with balanced(engines, tmp_path) as service, aiohttp.ClientSession() as session:
        async with session.post(f"{service.url}/v1/chat/completions", json=BODY) as response:
            await service.until(lambda: any(row.in_flight for row in service.balancer.snapshot().workers))
            victim = next(row.id for row in service.balancer.snapshot().workers if row.in_flight)
            before = [await response.content.readuntil(b"\n\n") for _ in range(2)]  # the role, the first piece
            service.paths[victim].kill()
            for gate in gates.values():
                gate.set()
            *frames, done, rest = b"".join([*before, await response.content.read()]).split(b"\n\n")
        assert (done, rest) == (b"data: [DONE]", b"")
        choices = [json.loads(frame.removeprefix(b"data: "))["choices"][0] for frame in frames]
        assert "".join(choice["delta"].get("content", "") for choice in choices) == "".join(PIECES)
        assert choices[-1]["finish_reason"] == "stop"
        other = engines["b" if victim == "a" else "a"]
        assert other.resumes[-1] != ()
        assert user_text(other.prompts[-1]) == "Ｈi"  # rendered there as the first worker did
        listed = [token["token"] for choice in choices if choice["logprobs"] for token in choice["logprobs"]["content"]]
        assert listed == [f"t{index}" for index in range(len(PIECES))]


async def test_a_completion_survives_the_death_of_its_worker(tmp_path):
    gates = {name: asyncio.Event() for name in "ab"}
    engines = {name: FakeEngine(gate=gate, pieces=PIECES) for name, gate in gates.items()}
    body = {"prompt": "从前", "stream": True, "max_tokens": 64}
    async with (
        balanced(engines, tmp_path) as service,
        aiohttp.ClientSession() as session,
        session.post(f"{service.url}/v1/completions", json=body) as response,
    ):
        first = await response.content.readuntil(b"\n\n")
        victim = next(row.id for row in service.balancer.snapshot().workers if row.in_flight)
        service.paths[victim].kill()
        for gate in gates.values():
            gate.set()
        *frames, done, rest = (first + await response.content.read()).split(b"\n\n")
    assert (done, rest) == (b"data: [DONE]", b"")
    choices = [json.loads(frame.removeprefix(b"data: "))["choices"][0] for frame in frames]
    assert "".join(choice["text"] for choice in choices) == "".join(PIECES)
    assert engines["b" if victim == "a" else "a"].resumes[-1] != ()


async def test_the_same_routes_and_names_as_on_a_worker(tmp_path):
    async with balanced({"a": FakeEngine()}, tmp_path) as service, aiohttp.ClientSession() as session:
        async with session.get(f"{service.url}/v1/models") as response:
            ids = [model["id"] for model in (await response.json())["data"]]
        assert ids[:3] == ["fake", "qwen-aio/safety", "qwen-aio/sentiment"]
        body = {"model": "qwen-aio/sentiment", "prompt": "失望"}
        async with session.post(f"{service.url}/v1/completions", json=body) as response:
            assert (await response.json())["choices"][0]["text"] == "【情感】:负面 【置信】:高"
        async with session.post(f"{service.url}/v1/chat/completions", json=BODY | {"model": "x"}) as response:
            assert (response.status, (await response.json())["error"]["code"]) == (404, "model_not_found")
