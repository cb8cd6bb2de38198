"""A model hub on this machine, in Hugging Face's layout, with a content network behind it; it fails as it is told to."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import shutil
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from aiohttp import web
from aiohttp.test_utils import TestServer
from safetensors.torch import save_file

from qwen_aio.models.find import BUNDLED

NAME = "Owner/Tiny-Chat"
COMMIT = "c0" * 20
WEIGHTS = "model.safetensors"
HIDDEN, MLP = 16, 32

Fault = Callable[[web.Request], Any]  # a reply instead of the file; None: the file, after all


@cache
def tiny_checkpoint() -> Mapping[str, bytes]:
    """The files of a random Qwen2 of one layer, with the bundled tokenizer."""
    config = json.loads((BUNDLED / "config.json").read_text())
    config |= {"hidden_size": HIDDEN, "intermediate_size": MLP, "num_hidden_layers": 1}
    config |= {"num_attention_heads": 1, "num_key_value_heads": 1}
    with TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "config.json").write_text(json.dumps(config))
        shutil.copy(BUNDLED / "tokenizer.json", folder)
        save_file(_random_weights(config["vocab_size"]), folder / WEIGHTS)
        (folder / "README.md").write_text("---\nlicense: other\n---\n")
        (folder / "LICENSE").write_text("For research.\n")
        return {path.name: path.read_bytes() for path in folder.iterdir()}


def _random_weights(vocab: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)

    def matrix(rows: int, columns: int) -> torch.Tensor:
        return (torch.randn(rows, columns, generator=generator) * 0.02).to(torch.bfloat16)

    layer = "model.layers.0"
    weights = {"model.embed_tokens.weight": matrix(vocab, HIDDEN), "model.norm.weight": torch.ones(HIDDEN)}
    weights |= {
        f"{layer}.{norm}.weight": torch.ones(HIDDEN) for norm in ("input_layernorm", "post_attention_layernorm")
    }
    weights |= {f"{layer}.self_attn.{name}_proj.weight": matrix(HIDDEN, HIDDEN) for name in "qkvo"}
    weights |= {f"{layer}.self_attn.{name}_proj.bias": torch.zeros(HIDDEN) for name in "qkv"}
    weights |= {f"{layer}.mlp.{name}_proj.weight": matrix(MLP, HIDDEN) for name in ("gate", "up")}
    return weights | {f"{layer}.mlp.down_proj.weight": matrix(HIDDEN, MLP)}


@dataclass(frozen=True)
class Seen:
    """A request as it came."""

    path: str
    range: str | None
    token: str | None


@dataclass
class FakeHub:
    """What it has, what goes wrong, and what it was asked for."""

    files: dict[str, bytes] = field(default_factory=lambda: dict(tiny_checkpoint()))
    commit: str = COMMIT
    listing: dict[str, Any] = field(default_factory=dict)  # fields of its answer that are not those of `files`
    faults: dict[str, deque[Fault]] = field(default_factory=lambda: defaultdict(deque))  # by file, first one first
    refusal: Fault | None = None  # instead of any answer of the hub
    seen: list[Seen] = field(default_factory=list)
    url: str = ""
    network: str = ""  # where files in LFS are

    def asked_for(self, name: str) -> list[Seen]:
        return [
            each
            for each in self.seen
            if each.path.endswith(f"/{name}") and each.path.startswith("/lfs/") is (name == WEIGHTS)
        ]

    def answer(self) -> dict[str, Any]:
        """What /api/models says."""
        siblings = [self._sibling(name, content) for name, content in self.files.items()]
        card = {"license": "other", "license_name": "tiny-research"}
        return {"sha": self.commit, "siblings": siblings, "cardData": card, "tags": ["license:other"]} | self.listing

    def _sibling(self, name: str, content: bytes) -> dict[str, Any]:
        git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        entry: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": git}
        if name.endswith(".safetensors"):
            sha256 = hashlib.sha256(content).hexdigest()
            entry |= {"lfs": {"sha256": sha256, "size": len(content), "pointerSize": 134}, "blobId": "0" * 40}
        return entry

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Of both servers."""
        self.seen.append(Seen(request.path, request.headers.get("Range"), request.headers.get("Authorization")))
        if self.refusal and (reply := self.refusal(request)):
            return reply
        if request.path.startswith("/api/models/"):
            return web.json_response(self.answer())
        name = request.path.rpartition("/")[2]
        if name.endswith(".safetensors") and not request.path.startswith("/lfs/"):
            return web.Response(status=302, headers={"Location": f"{self.network}/lfs/{name}"})
        if self.faults[name] and (reply := self.faults[name].popleft()(request)):
            return await reply if asyncio.iscoroutine(reply) else reply
        return ranged(request, self.files[name])


def ranged(request: web.Request, content: bytes) -> web.Response:
    """`content`, or the part that was asked for."""
    found = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
    if found is None:
        return web.Response(body=content)
    start = int(found[1])
    told = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
    return web.Response(status=206, body=content[start:], headers=told)


def breaks_after(num_bytes: int, content: bytes) -> Fault:
    """The connection ends after so many bytes of what was asked for."""

    async def reply(request: web.Request) -> web.StreamResponse:
        whole = ranged(request, content)
        response = web.StreamResponse(status=whole.status, headers=whole.headers)
        response.content_length = len(whole.body)
        await response.prepare(request)
        await response.write(whole.body[:num_bytes])
        request.transport.close()
        return response

    return reply


@asynccontextmanager
async def serving(hub: FakeHub) -> AsyncIterator[FakeHub]:
    """The hub on one port, its content network on another."""
    servers = [TestServer(_app(hub)) for _ in range(2)]
    for server in servers:
        await server.start_server()
    hub.url, hub.network = (str(server.make_url("")).rstrip("/") for server in servers)
    try:
        yield hub
    finally:
        for server in servers:
            await server.close()


def _app(hub: FakeHub) -> web.Application:
    app = web.Application()
    app.router.add_get("/{path:.*}", hub.handle)
    return app
