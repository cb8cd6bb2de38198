"""The health routes of every server: `/livez`, `/readyz`, `/health`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import Response

from qwen_aio.errors import Draining, EngineStopped, NotReady, NoWorker, QwenAioError
from qwen_aio.serving.admission import AdmissionGate
from qwen_aio.serving.openapi.endpoint import Endpoint
from qwen_aio.wire.error import ErrorResponse, error_headers
from qwen_aio.wire.shape import JSON_MEDIA, Answered

NO_DETAILS = "this server takes no requests now; GET /health says why"
TAG = "Watching"


class LiveShape(Answered):
    """The reply of /livez."""

    status: Literal["ok"]
    """Always this."""


class ReadyShape(Answered):
    """The reply of /readyz with 200."""

    status: Literal["ready"]
    """With 503 it is `unavailable`, and there is an `error`."""


@dataclass(frozen=True)
class Health:
    """The record of /health; `refusal` is why its status is not 200, None if it is."""

    record: dict[str, object]
    refusal: QwenAioError | None


class HealthRoutes:
    """Routes for load balancers, orchestrators and operators."""

    def __init__(self, gate: AdmissionGate, *, health: Callable[[], Health]) -> None:
        self._gate = gate
        self._health = health

    async def livez(self, request: Request) -> Response:
        """200 as long as the process answers at all."""
        return _record({"status": "ok"}, None, request)

    async def readyz(self, request: Request) -> Response:
        """200 if requests are admitted now, else 503 without details: any Host may ask."""
        refusal = self._health().refusal
        hidden = refusal and type(refusal)(NO_DETAILS, retry_after_s=refusal.retry_after_s)
        return _record({"status": "unavailable" if refusal else "ready"}, hidden, request)

    async def health(self, request: Request) -> Response:
        """The status of /readyz, with details."""
        health = self._health()
        return _record(health.record | {"in_flight": self._gate.in_flight}, health.refusal, request)


def health_endpoints(gate: AdmissionGate, *, health: Callable[[], Health], shape: Any) -> list[Endpoint]:
    """`shape` is that of a record; /health adds `in_flight`."""
    probes = HealthRoutes(gate, health=health)
    errors = (NotReady, Draining, EngineStopped, NoWorker)
    return [
        Endpoint(
            "/livez",
            probes.livez,
            name="livez",
            tag=TAG,
            summary="Whether the process answers at all",
            answers=LiveShape,
            is_probe=True,
        ),
        Endpoint(
            "/readyz",
            probes.readyz,
            name="readyz",
            tag=TAG,
            summary="Whether requests are admitted now",
            answers=ReadyShape,
            errors=errors,
            is_probe=True,
        ),
        Endpoint(
            "/health",
            probes.health,
            name="health",
            tag=TAG,
            summary="The status of /readyz, with details",
            description="The record and `in_flight`, the number of requests that were admitted and have not ended. "
            "With 503 the body has `error`, too.",
            answers=shape,
            adds={"in_flight": {"type": "integer", "description": "Requests that were admitted and have not ended."}},
            errors=errors,
        ),
    ]


def _record(record: dict[str, object], refusal: QwenAioError | None, request: Request) -> Response:
    """JSON that no cache keeps; 503, and `refusal` in it, if there is one."""
    status, headers = 200, {"Cache-Control": "no-store"}
    if refusal is not None:
        status, headers = 503, headers | error_headers(refusal)
        record = record | ErrorResponse.from_core(refusal, request.state.request_id).model_dump()
    return Response(json.dumps(record, ensure_ascii=False, allow_nan=False), status, headers, media_type=JSON_MEDIA)
