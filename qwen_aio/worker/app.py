"""The application of one worker: what every server has, and the calls of balancers."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import asdict, replace

from fastapi import FastAPI
from starlette.routing import Route

from qwen_aio.core import WorkerStatus
from qwen_aio.serving.admission import AdmissionGate
from qwen_aio.serving.app import DIRECT, Health, create_app, v1_routes
from qwen_aio.serving.guard import Worded, as_json
from qwen_aio.serving.pipeline import Executor
from qwen_aio.serving.proxied import ProxySettings
from qwen_aio.serving.sse import STREAM_TIMES, StreamTimes
from qwen_aio.wire.engine import CALL_PATH
from qwen_aio.worker.engine_route import EngineRoute


def create_worker_app(
    door: AdmissionGate,
    *,
    calls: Callable[[], Executor],
    status: Callable[[], WorkerStatus],
    allowed_hosts: Collection[str] = (),
    proxy: ProxySettings = DIRECT,
    page_csp: str = "default-src 'self'",
    worded: Worded = as_json,
    times: StreamTimes = STREAM_TIMES,
) -> FastAPI:
    """`calls` raises the door's refusal while there are none; `status` is the record of /health."""
    return create_app(
        door,
        routes=[
            *v1_routes(door, offer=lambda: calls().offer(), times=times),
            Route(CALL_PATH, EngineRoute(door, calls, times=times), methods=["POST"]),
        ],
        health=lambda: Health(asdict(replace(status(), state=door.state)), door.refusal),
        allowed_hosts=allowed_hosts,
        proxy=proxy,
        page_csp=page_csp,
        worded=worded,
    )
