"""An HTTP client of a worker without a socket, and how its replies are read."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI

from tests.served import Worker


@asynccontextmanager
async def calling(worker: Worker) -> AsyncIterator[httpx.AsyncClient]:
    """For what needs no hanging up."""
    async with calling_app(worker.app) as client:
        yield client


@asynccontextmanager
async def calling_app(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


def check_refusal(response: httpx.Response, status: int, code: str) -> dict:
    """Invariant I9: every refusal is JSON, names itself, and says when to come back if that makes sense."""
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    assert len(response.content) < 1000
    assert b"Traceback" not in response.content
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code", "request_id"}
    assert error["code"] == code
    assert error["request_id"] == response.headers["x-request-id"] != ""
    if status in (429, 503):
        assert int(response.headers["retry-after"]) >= 1
    return error


def sse(body: str) -> list[tuple[str, dict]]:
    """Name and data of every event."""
    frames = [frame.split("\n") for frame in body.split("\n\n") if frame and not frame.startswith(":")]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in frames]
