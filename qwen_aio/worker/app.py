"""The application of one worker: the routes of every server, and what only a worker has."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import asdict, replace

from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from starlette.routing import Route

from qwen_aio.serving.access.key_ring import KeyRing
from qwen_aio.serving.access.limits import NO_LIMITS, RateLimits
from qwen_aio.serving.admission import AdmissionGate
from qwen_aio.serving.app import DIRECT, NO_KEYS, create_app, v1_routes
from qwen_aio.serving.guard import Worded, as_json
from qwen_aio.serving.health_routes import Health
from qwen_aio.serving.metrics import metrics_route
from qwen_aio.serving.openapi.docs import ProgramInfo
from qwen_aio.serving.sse import STREAM_TIMES, StreamTimes
from qwen_aio.serving.transport.proxied import ProxySettings
from qwen_aio.status.record import WorkerStatus
from qwen_aio.wire.engine import ENGINE_PATH, TOKENS_PATH
from qwen_aio.worker.engine_route import EngineRoute, TokensRoute

INFO = ProgramInfo("qwen_aio worker", "One engine behind HTTP: decisions, answers and OpenAI's routes.", WorkerStatus)


def create_worker_app(
    gate: AdmissionGate,
    *,
    status: Callable[[], WorkerStatus],
    metrics: CollectorRegistry,
    keys: KeyRing = NO_KEYS,
    limits: RateLimits = NO_LIMITS,
    allowed_hosts: Collection[str] = (),
    proxy: ProxySettings = DIRECT,
    page_csp: str = "default-src 'self'",
    worded: Worded = as_json,
    times: StreamTimes = STREAM_TIMES,
    allow_system_messages: bool = False,
) -> FastAPI:
    """`gate` opens with a Pipeline; `status` is the record of /health, `metrics` what /metrics shows."""
    return create_app(
        gate,
        routes=[
            *v1_routes(gate, times=times, allow_system_messages=allow_system_messages),
            metrics_route(metrics),
            # Not described: these are for balancers.
            Route(ENGINE_PATH, EngineRoute(gate, times=times), methods=["POST"]),
            Route(TOKENS_PATH, TokensRoute(gate).tokens, methods=["POST"]),
        ],
        health=lambda: Health(asdict(replace(status(), state=gate.state)), gate.refusal),
        keys=keys,
        limits=limits,
        allowed_hosts=allowed_hosts,
        proxy=proxy,
        page_csp=page_csp,
        worded=worded,
        info=INFO,
    )
