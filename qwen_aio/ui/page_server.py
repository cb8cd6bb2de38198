"""The page in a process of its own, for a balancer or a worker elsewhere: `serve --mode ui`.

It serves while that server does not answer, too, and says so: on the page, on stderr and at
/health.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from qwen_aio import __version__
from qwen_aio.client.async_client import AsyncClient
from qwen_aio.config import PAGE_PORT, Settings, checked_address
from qwen_aio.egress.guard import EgressGuard
from qwen_aio.machine.folders import state_dir
from qwen_aio.serving.admission import AdmissionGate
from qwen_aio.serving.app import create_app
from qwen_aio.serving.health_routes import Health
from qwen_aio.serving.transport.server import bind, run_server
from qwen_aio.startup import event_loop
from qwen_aio.startup.egress import egress_guard
from qwen_aio.startup.environment import prepare_gradio
from qwen_aio.startup.exposure import key_ring, rate_limits, service_key
from qwen_aio.startup.listening import allowed_hosts, own_url, proxy_settings
from qwen_aio.startup.messages import say
from qwen_aio.startup.phases import phase
from qwen_aio.startup.tls import certificate, tls_to
from qwen_aio.ui.remote_service import RemoteService

if TYPE_CHECKING:
    from fastapi import FastAPI

SERVER_URL = "http://127.0.0.1:8000"
LOOK_S = 3.0  # between two checks whether the server answers


def serve_page(settings: Settings, *, url: str) -> int:
    """Serve until a signal; the exit status. Raises InvalidSettings."""
    address = checked_address(url, flag="url")
    egress = egress_guard(settings, address)
    with bind(settings.host, settings.port or PAGE_PORT) as sock:
        return event_loop.run(run_page(settings, address=address, sock=sock, egress=egress))


async def run_page(
    settings: Settings, *, address: str, sock: socket.socket, egress: EgressGuard, look_s: float = LOOK_S
) -> int:
    """Serve until a signal; checks the server at `address` every `look_s` seconds."""
    gate = AdmissionGate(starting="the page is just starting; try again in a second")
    async with AsyncClient(address, key=service_key(settings), tls=tls_to(settings)(address)) as client:
        service = RemoteService(client, url=address, version=__version__)
        app = _app(settings, gate, service, egress)
        say(f"page for {address}", f"open {own_url(settings, sock.getsockname()[1])}")
        life = partial(_live, gate, service, look_s)
        return await run_server(app, sock=sock, gate=gate, life=life, certificate=certificate(settings))


def _app(settings: Settings, gate: AdmissionGate, service: RemoteService, egress: EgressGuard) -> FastAPI:
    prepare_gradio(os.environ, state=state_dir())
    # Here and not above: gradio takes seconds to import, and the port is taken before.
    with phase("loading the page"):
        from qwen_aio.ui.mount import CONTENT_SECURITY_POLICY, mount_page
        from qwen_aio.ui.page import build_page
        from qwen_aio.ui.refusals import worded

    keys = key_ring(settings)
    app = create_app(
        gate,
        keys=keys,
        limits=rate_limits(settings),
        routes=[],
        health=lambda: _health(gate, service, egress),
        allowed_hosts=allowed_hosts(settings),
        proxy=proxy_settings(settings),
        page_csp=CONTENT_SECURITY_POLICY,
        worded=worded,
    )
    return mount_page(app, build_page(gate, about=lambda: replace(service.about(), has_keys=not keys.is_open)))


async def _live(gate: AdmissionGate, service: RemoteService, look_s: float) -> None:
    """Open the gate whether or not the server answers, then keep checking."""
    await service.look()
    if service.failure is not None:
        say(f"{service.url} does not serve yet: {service.failure.message}", file=sys.stderr)
        say("the page is there meanwhile, says so, and goes on by itself once it does", file=sys.stderr)
    gate.open(service)
    while True:
        await asyncio.sleep(look_s)
        await service.look()


def _health(gate: AdmissionGate, service: RemoteService, egress: EgressGuard) -> Health:
    """Not ready without its server: a message sent now would not be answered."""
    refusal = gate.refusal or service.failure
    state = "unavailable" if gate.refusal is None and service.failure is not None else gate.state
    return Health({"state": state, "egress_refused": egress.refused} | service.record(), refusal)
