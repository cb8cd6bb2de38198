"""The application of a balancer: what every server has, and the dashboard."""

from __future__ import annotations

from collections.abc import Collection

from fastapi import FastAPI

from qwen_aio.balancer.balancer import Balancer
from qwen_aio.balancer.dashboard.routes import dashboard_routes
from qwen_aio.balancer.snapshot import HealthRecord
from qwen_aio.serving.access.key_ring import KeyRing
from qwen_aio.serving.access.limits import NO_LIMITS, RateLimits
from qwen_aio.serving.admission import AdmissionGate
from qwen_aio.serving.app import DIRECT, NO_KEYS, create_app, v1_routes
from qwen_aio.serving.metrics import metrics_route
from qwen_aio.serving.openapi.docs import ProgramInfo
from qwen_aio.serving.openapi.work_errors import LOST_WORK
from qwen_aio.serving.transport.proxied import ProxySettings

INFO = ProgramInfo(
    "qwen_aio balancer", "Many workers behind one address, with the same routes as each of them.", HealthRecord
)


def create_balancer_app(
    balancer: Balancer,
    gate: AdmissionGate,
    *,
    keys: KeyRing = NO_KEYS,
    limits: RateLimits = NO_LIMITS,
    allowed_hosts: Collection[str] = (),
    proxy: ProxySettings = DIRECT,
    allow_system_messages: bool = False,
) -> FastAPI:
    """The same `/v1` as a worker's, with the dashboard at /."""
    routes = [
        *v1_routes(gate, allow_system_messages=allow_system_messages, also=LOST_WORK),
        metrics_route(balancer.metrics.registry),
        *dashboard_routes(balancer),
    ]
    return create_app(
        gate,
        routes=routes,
        health=balancer.health,
        keys=keys,
        limits=limits,
        allowed_hosts=allowed_hosts,
        proxy=proxy,
        info=INFO,
    )
