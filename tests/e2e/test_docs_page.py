"""/docs in a real browser: in both colour schemes, wide and narrow, with nothing fetched from elsewhere."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import axe_playwright_python
import pytest
import uvicorn

from qwen_aio.serving.transport.server import bind
from tests.campaign import in_campaign
from tests.e2e.conftest import Visit
from tests.openapi import PROGRAMS

AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js").read_text(encoding="utf-8")


@pytest.fixture(params=PROGRAMS)
def url(request) -> Iterator[str]:
    sock = bind("127.0.0.1", 0)
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        server = uvicorn.Server(uvicorn.Config(PROGRAMS[request.param](), log_level="error", ws="none"))
        servers.append(server)
        began.set()
        await server.serve(sockets=[sock])

    servers: list[uvicorn.Server] = []
    began = threading.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    began.wait()
    yield f"http://127.0.0.1:{sock.getsockname()[1]}/docs"
    servers[0].should_exit = True
    thread.join()
    loop.close()
    sock.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_the_page_is_readable_and_asks_nobody(url, visit: Visit, scheme, width):
    page = visit(url, color_scheme=scheme, viewport={"width": width, "height": 800}, bypass_csp=False)
    page.get_by_role("link", name="POST /v1/run").click()
    assert page.url.endswith("#run")
    details = page.locator("details#run")
    assert details.get_by_text("快递太慢了,差评!").first.is_visible()
    details.get_by_role("link", name="RunRequest").click()
    assert page.locator("section#RunRequest").get_by_text("on_overflow").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == {"light": "rgb(250, 248, 244)", "dark": "rgb(19, 23, 26)"}[scheme]


@pytest.mark.parametrize("scheme", ["light", *in_campaign("dark")])
def test_no_barriers(url, visit: Visit, scheme):
    page = visit(url, color_scheme=scheme, bypass_csp=True)  # axe is a script
    page.evaluate(AXE)
    found = page.evaluate("async () => (await axe.run()).violations")
    assert [(each["id"], [node["target"] for node in each["nodes"][:3]]) for each in found] == []
