"""Every path in the code of this Gradio is either served by the page or refused for a reason given here.

A new Gradio with one more path makes this fail, before a tab waits for an answer that never comes.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import gradio
import httpx
import pytest
from fastapi import FastAPI

from qwen_aio.serving.admission import AdmissionGate
from qwen_aio.serving.app import create_app
from qwen_aio.serving.health_routes import Health
from qwen_aio.ui.about import About
from qwen_aio.ui.mount import PAGE_FOLDERS, PAGE_PATHS, mount_page
from qwen_aio.ui.page import build_page
from tests.ui.fakes import FakeService, both

FRONTEND = Path(gradio.__file__).parent / "templates" / "frontend"
API = "/gradio_api"

# Why the page does not serve a path, and the paths, without /gradio_api and what varies.
REFUSED = {
    "the page has its configuration and its functions inside": {"config", "info", "api/info"},
    "the page starts with its process": {"startup-events"},
    "the page has no sign-in": {"login", "login_check", "login/huggingface", "logout", "token", "user"},
    "nothing is uploaded": {"preupload", "upload", "upload_progress", "process_recording"},
    "no file is read for a visitor": {"file", "svelte", "deep_link"},
    "nothing is fetched for a visitor": {"proxy"},
    "only the page calls its functions": {"api", "call", "call/v2", "openapi.json"},
    "a running request is ended by the page's own button": {"cancel", "reset"},
    "the queue is not shown": {"queue/status"},
    "no component streams media": {"stream", "close"},
    "no component has functions of its own": {"component_server"},
    "no component comes from elsewhere": {
        *("custom_component", "index.js", "style.css", "svelte_runtime_entry.js"),
    },
    "runs are not recorded": {
        "runs",
        "run-history",
        "run-history/buckets",
        "run-history/connect",
        "run-history/records",
    },
    "nothing is counted for strangers": {
        *("monitoring", "monitoring/summary", "profiling/traces", "profiling/summary", "profiling/clear"),
    },
    "the page is not edited in the browser": {
        *("dev/reload", "vibe-code", "vibe-edit", "undo-vibe-edit", "vibe-starter-queries"),
    },
    "the page is not an app to install, and for no search engine": {"manifest.json", "pwa_icon", "robots.txt"},
    "paths of huggingface.co": {
        *("avatar", "commit", "discussions", "discussions/new", "duplicate", "host", "jwt", "reconstruction"),
        *("runtime", "sleeptime", "xet-read-token/main"),
    },
    "names of functions in Gradio's own applications": {
        *("call_space", "clear_", "handle_", "load_", "on_", "predict", "predict_fn_", "prepare_", "reset_", "update_"),
    },
}
REFUSED_NAMES = set().union(*REFUSED.values())


def name_of(path: str) -> str:
    """`/gradio_api/heartbeat/{session_hash}` -> `heartbeat`."""
    return path.partition("{")[0].removeprefix(API).strip("/=")


SERVED_NAMES = {name_of(path) for path in (*PAGE_PATHS, *PAGE_FOLDERS)} - {"run/predict"} | {"run"}


def asked_for() -> set[str]:
    """Names in the scripts of the page that know of Gradio's server, and in the page itself."""
    scripts = [path.read_text(encoding="utf-8") for path in (FRONTEND / "assets").glob("*.js")]
    own = [script for script in scripts if "api_prefix" in script or "gradio_api" in script]
    client = next(script for script in own if "`queue/join`" in script)
    listed = re.search(r"(?:\w+=`[a-z_/]+`,){8,}", client)
    assert listed and "app_id" in listed[0]
    texts = [text for script in own for text in re.findall(r"`[^`]*`", script)]
    within = {path for text in texts for path in re.findall(r"(?:^`|\})(/[a-z][a-z_./=-]*)", text)}
    links = re.findall(r'(?:src|href)="\.?(/[^"]+)"', (FRONTEND / "index.html").read_text(encoding="utf-8"))
    paths = {*re.findall(r"`(.*?)`", listed[0]), *within, *links}
    return {name_of(re.sub(r"^/(assets|static)/.*", r"/\1/", path)) for path in paths}


@pytest.fixture(scope="module")
def app() -> FastAPI:
    service = FakeService(lambda _: both("hi"))
    app = create_app(AdmissionGate(), routes=[], health=lambda: Health({}, None))
    return mount_page(app, build_page(service, about=lambda: About("tiny", True, "1", "qwen-1")))


@pytest.fixture
async def caller(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        yield client


def answered() -> list[tuple[str, str]]:
    """Method and path of all that Gradio's server answers."""
    code = (FRONTEND.parents[1] / "routes.py").read_text(encoding="utf-8")
    found = re.findall(r'@(app|router)\.(get|post|put|delete)\(\s*f?"([^"]*)"', code)
    assert len(found) > 50
    return [(method.upper(), path if owner == "app" else API + path) for owner, method, path in found]


def test_every_path_is_served_or_refused_for_a_reason() -> None:
    known = asked_for() | {name_of(path) for _, path in answered()}
    assert known - SERVED_NAMES - REFUSED_NAMES == set(), "a path of Gradio that is neither served nor refused"
    assert (SERVED_NAMES | REFUSED_NAMES) - known == set(), "no path of this Gradio any more"
    assert SERVED_NAMES.isdisjoint(REFUSED_NAMES)


# Not the heartbeat, which does not end; every test in a browser has one.
# Nor what a server answers itself at the same address: signing in is not Gradio's affair.
@pytest.mark.parametrize(
    ("method", "path"),
    [route for route in answered() if "heartbeat" not in route[1] and route[1] not in ("/login", "/logout")],
)
async def test_the_guard_lets_through_what_is_served_and_nothing_else(
    method: str, path: str, caller: httpx.AsyncClient
) -> None:
    concrete = path.replace("/run/{api_name}", "/run/predict")
    concrete = re.sub(r"\{[^}]*\}", "x", concrete)
    response = await caller.request(method, concrete, json={} if method == "POST" else None)
    is_refused = response.status_code == 404 and "unknown_path" in response.text
    is_served = concrete in PAGE_PATHS or concrete.startswith(PAGE_FOLDERS)
    assert is_refused != is_served, response.text


async def test_a_tab_that_lost_the_page_hears_which_process_is_there_now(caller: httpx.AsyncClient) -> None:
    response = await caller.get("/gradio_api/app_id")
    assert response.status_code == 200 and response.json()["app_id"]


async def test_the_page_has_no_address_of_its_own_whatever_headers_say(caller: httpx.AsyncClient) -> None:
    lies = {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https", "X-Gradio-Server": "http://evil.example"}
    page = (await caller.get("/?x=1", headers=lies)).text
    assert '"root":"."' in page and "evil.example" not in page
