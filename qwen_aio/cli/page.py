"""The page in a process of its own, in front of a balancer or a worker elsewhere: `serve --mode ui`.

Serves also while nobody answers over there, and says so: on the page, on stderr and at /health.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from typing import TYPE_CHECKING

from qwen_aio import __version__
from qwen_aio.client import Client
from qwen_aio.config import PAGE_PORT, Settings, checked_address, state_dir
from qwen_aio.serving.admission import AdmissionGate
from qwen_aio.serving.app import Health, create_app
from qwen_aio.serving.server import bind, run_server
from qwen_aio.startup.environment import prepare_gradio
from qwen_aio.startup.listening import allowed_hosts, proxy_settings, url_of
from qwen_aio.ui.remote_service import RemoteService

if TYPE_CHECKING:
    from fastapi import FastAPI

SERVER_URL = "http://127.0.0.1:8000"
LOOK_S = 3.0  # between two looks whether the server behind the page answers


def serve_page(settings: Settings, *, url: str) -> int:
    """Serve until a signal; the exit status. Raises InvalidSettings."""
    address = checked_address(url, flag="url")
    with bind(settings.host, settings.port or PAGE_PORT) as sock:
        return asyncio.run(run_page(settings, address=address, sock=sock))


async def run_page(settings: Settings, *, address: str, sock: socket.socket, look_s: float = LOOK_S) -> int:
    """Put together and serve; every `look_s` seconds somebody looks whether the server behind answers."""
    door = AdmissionGate(starting="the page is just starting; try again in a second")
    async with Client(address) as client:
        behind = RemoteService(client, url=address, version=__version__)
        app = _app(settings, door, behind)
        print(f"page for {address}; open {url_of(settings.host, sock.getsockname()[1])}", flush=True)
        return await run_server(app, sock=sock, gate=door, life=lambda: _live(door, behind, look_s))


def _app(settings: Settings, door: AdmissionGate, behind: RemoteService) -> FastAPI:
    prepare_gradio(os.environ, state=state_dir())
    # Here and not above: gradio takes seconds to import, and the port is taken before.
    from qwen_aio.ui.mount import CONTENT_SECURITY_POLICY, mount_page
    from qwen_aio.ui.page import build_page
    from qwen_aio.ui.refusals import worded

    app = create_app(
        door,
        routes=[],
        health=lambda: _health(door, behind),
        allowed_hosts=allowed_hosts(settings),
        proxy=proxy_settings(settings),
        page_csp=CONTENT_SECURITY_POLICY,
        worded=worded,
    )
    return mount_page(app, build_page(door, about=behind.about))


async def _live(door: AdmissionGate, behind: RemoteService, look_s: float) -> None:
    """Open the door whether or not anybody answers, then keep looking."""
    await behind.look()
    if behind.failure is not None:
        print(
            f"{behind.url} does not serve yet: {behind.failure.message}\n"
            "the page is there meanwhile, says so, and goes on by itself once it does",
            file=sys.stderr,
            flush=True,
        )
    door.open(behind)
    while True:
        await asyncio.sleep(look_s)
        await behind.look()


def _health(door: AdmissionGate, behind: RemoteService) -> Health:
    """Not ready without the server behind it: a message sent now would not be answered."""
    refusal = door.refusal or behind.failure
    state = "unavailable" if door.refusal is None and behind.failure is not None else door.state
    return Health({"state": state} | behind.record(), refusal)
