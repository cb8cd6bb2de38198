"""The page where keys are needed: Gradio's own paths open nothing, and the page says where to sign out."""

from __future__ import annotations

import asyncio
import re

import httpx
import pytest
from fastapi import FastAPI
from starlette.routing import Mount, Route

from qwen_aio.cli.serve import _app_with_page
from qwen_aio.client.async_client import AsyncClient
from qwen_aio.config import load_settings
from qwen_aio.egress.guard import EgressGuard
from qwen_aio.errors import KeyRefused
from qwen_aio.models.find import ModelFolder
from qwen_aio.serving.access.key_ring import KeyRing
from qwen_aio.serving.access.rules import RULES
from qwen_aio.serving.admission import AdmissionGate
from qwen_aio.serving.metrics import RequestMetrics
from qwen_aio.serving.transport.server import bind
from qwen_aio.ui.about import About
from qwen_aio.ui.html.frame import about_html
from qwen_aio.ui.mount import PAGE_FOLDERS, PAGE_PATHS
from qwen_aio.ui.page_server import run_page
from qwen_aio.ui.strings import CHINESE, ENGLISH
from tests.keys import BAD, SECRETS, bearer, file_of_keys, status_of
from tests.served import STATUS
from tests.ui.test_paths import answered


@pytest.fixture
def app(tmp_path, monkeypatch) -> FastAPI:
    """A worker with the page on it, as `python app.py` makes it."""
    monkeypatch.setenv("QWEN_AIO_HOME", str(tmp_path))
    model = ModelFolder(tmp_path, "tiny", is_bundled=True, chosen_by="a test")
    metrics = RequestMetrics(running=lambda: 0, waiting=lambda: 0).registry
    keys = KeyRing(file_of_keys(tmp_path).path)
    return _app_with_page(model, AdmissionGate(), status=lambda: STATUS, metrics=metrics, keys=keys)


async def test_no_path_of_gradio_opens_what_v1_closes(app):
    mount = app.routes[-1]
    assert isinstance(mount, Mount) and mount.path == ""
    assert {route.path for route in app.routes if isinstance(route, Route)} <= RULES.keys()
    gradios = {re.sub(r"{[^}]*}", "x", path) for _, path in answered()}
    paths = gradios | PAGE_PATHS | {f"{each}x" for each in PAGE_FOLDERS}
    for path in sorted(paths - {"/login", "/logout"}):  # those are ours
        for method in ("GET", "POST"):
            for headers in ({}, bearer(BAD)):
                assert (await status_of(app, method, path, headers))[0] == 401, (method, path)
    assert (await status_of(app, "GET", "/", bearer(SECRETS["user"])))[0] == 200


async def test_the_pages_script_hears_that_the_session_is_over(app):
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        reply = await client.post("/gradio_api/queue/join", json={}, headers={"accept-language": "zh"})
    assert (reply.status_code, reply.json()["detail"]) == (401, CHINESE.refusals["invalid_api_key"])


def test_who_has_signed_in_can_sign_out():
    about = About("tiny", is_bundled=False, version="1", worker="w")
    assert "login" not in about_html(about, ENGLISH)
    assert '<a href="login">Sign out</a>' in about_html(
        About("tiny", is_bundled=False, version="1", worker="w", has_keys=True), ENGLISH
    )


async def test_the_page_before_a_server_needs_its_own_keys(tmp_path, monkeypatch):
    monkeypatch.setenv("QWEN_AIO_HOME", str(tmp_path))
    file_of_keys(tmp_path)
    (tmp_path / "service.key").write_text(SECRETS["service"])
    sock = bind("127.0.0.1", 0)
    url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    serving = asyncio.ensure_future(
        run_page(load_settings({}), address="http://127.0.0.1:1", sock=sock, egress=EgressGuard(), look_s=60)
    )
    try:
        async with AsyncClient(url) as stranger, AsyncClient(url, key=SECRETS["user"]) as known:
            with pytest.raises(KeyRefused):
                await stranger.health()
            assert (await known.health())["server"] == "http://127.0.0.1:1"
    finally:
        serving.cancel()
        await asyncio.wait({serving})
        sock.close()
