"""Balance: one address for many workers, with a live dashboard.

python balancer.py                                     all in status.json, on http://127.0.0.1:8000
python balancer.py --workers qwen-1,qwen-2,qwen-3      these, which may start later
python balancer.py --workers a=http://10.0.0.7:7861    a worker on another machine
python balancer.py --workers dns:workers.local:7861    every address of a name
"""

from __future__ import annotations

import argparse
import os
import socket

from qwen_aio.balancer.app import create_balancer_app
from qwen_aio.balancer.balancer import Balancer
from qwen_aio.balancer.workers.admin import AdminFile
from qwen_aio.config import Settings, settings_of, status_dir
from qwen_aio.egress.guard import EgressGuard
from qwen_aio.serving.admission import AdmissionGate
from qwen_aio.serving.transport.server import bind, run_server
from qwen_aio.startup import event_loop
from qwen_aio.startup.egress import egress_guard
from qwen_aio.startup.exposure import check_exposure, key_ring, rate_limits, service_key
from qwen_aio.startup.flags import add_settings_flags, settings_from
from qwen_aio.startup.listening import allowed_hosts, own_url, proxy_settings
from qwen_aio.startup.log import log_to_stderr
from qwen_aio.startup.messages import say
from qwen_aio.startup.service_manager import ServiceManager
from qwen_aio.startup.tls import certificate, tls_to

PORT = 8000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_settings_flags(parser, *settings_of("balancer"))


def main(arguments: argparse.Namespace) -> int:
    """Balance until a signal; the exit status."""
    settings = balancer_settings(arguments)
    check_exposure(settings)
    log_to_stderr(settings)
    egress = egress_guard(settings)
    with bind(settings.host, settings.port or PORT) as sock, AdminFile(status_dir(settings)).owned():
        return event_loop.run(_balance(settings, sock, egress))


def balancer_settings(arguments: argparse.Namespace) -> Settings:
    """Those of this run; a number of workers, which a file gives a cluster, is no id.

    Raises InvalidSettings.
    """
    settings = settings_from(arguments)
    is_number = len(settings.workers) == 1 and settings.workers[0].isdecimal()
    return settings.model_copy(update={"workers": ()}) if is_number and "workers" not in arguments else settings


async def _balance(settings: Settings, sock: socket.socket, egress: EgressGuard) -> int:
    manager = ServiceManager.of_process(os.environ)
    gate = AdmissionGate(starting="the balancer is just starting; try again in a second", on_state=manager.tell)
    balancer = Balancer(
        settings,
        gate,
        status_dir=status_dir(settings),
        egress=egress,
        key=service_key(settings),
        tls_to=tls_to(settings),
    )
    app = create_balancer_app(
        balancer,
        gate,
        keys=key_ring(settings),
        limits=rate_limits(settings),
        allowed_hosts=allowed_hosts(settings),
        proxy=proxy_settings(settings),
        allow_system_messages=settings.allow_system_messages,
    )
    say(f"balancer, policy {settings.policy}", f"open {own_url(settings, sock.getsockname()[1])}")
    return await run_server(app, sock=sock, gate=gate, life=balancer.live, certificate=certificate(settings))
