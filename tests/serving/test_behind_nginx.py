"""A stream of /v1 through a real nginx: token by token, with what is documented, shipped, and nginx's own settings."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx
import pytest

from tests.fakes import FakeEngine
from tests.nginx import BALANCER, DOCS, SERVER, SITE, documented, nginx_with
from tests.served import Worker, served

BARE = f"location /balancer/ {{ proxy_pass http://{BALANCER}/; }}"  # HTTP/1.0 and buffers, as nginx does by itself
SITES = {
    "documented": SERVER.format(locations=documented()),
    "bare": SERVER.format(locations=BARE),
    "shipped": SITE.read_text(encoding="utf-8"),
}


def test_both_languages_document_the_same_block() -> None:
    assert documented(DOCS[0]) == documented(DOCS[1])


@pytest.mark.parametrize("site", SITES)
async def test_a_stream_arrives_token_by_token(site: str, tmp_path: Path) -> None:
    release = asyncio.Event()
    worker = Worker(FakeEngine(pieces=("抱", "歉"), gate=release))
    async with served(worker) as there, httpx.AsyncClient(trust_env=False) as client:
        with nginx_with(tmp_path, SITES[site], {BALANCER: f"127.0.0.1:{there.port}"}) as port:
            body = {"text": "讲一个故事", "mode": "chat", "stream": True}
            async with client.stream("POST", f"http://127.0.0.1:{port}/balancer/v1/run", json=body) as response:
                assert response.status_code == 200
                tokens = []
                async for line in response.aiter_lines():
                    if '"index"' in line:
                        tokens.append(json.loads(line.removeprefix("data: "))["text"])
                        release.set()  # the second one is not made before the first is here
                assert tokens == ["抱", "歉"]
