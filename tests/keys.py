"""A file of keys with one key of each role, and how a request is checked without its reply being read."""

from __future__ import annotations

import asyncio
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import ASGIApp

from qwen_aio.serving.access.keys import ROLES, KeyFile

SECRETS = {role: f"secret-of-the-{role}" for role in ROLES}
BAD = "secret-of-nobody"


def file_of_keys(folder: Path) -> KeyFile:
    file = KeyFile(folder / "keys.json")
    for role, secret in SECRETS.items():
        file.add(f"{role}-1", role, secret)
    return file


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


async def status_of(app: ASGIApp, method: str, path: str, headers: dict[str, str]) -> tuple[int, Headers]:
    """Status and headers; the reply is left there, since some replies never end."""
    began: asyncio.Future[dict] = asyncio.get_running_loop().create_future()
    body = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> dict:
        return body.pop() if body else await asyncio.Future()

    async def send(message: dict) -> None:
        if not began.done():
            began.set_result(message)

    raw = [(name.encode(), value.encode()) for name, value in {"host": "localhost", **headers}.items()]
    scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b""}
    serving = asyncio.ensure_future(app({**scope, "headers": raw, "scheme": "http", "root_path": ""}, receive, send))
    await asyncio.wait({serving, began}, return_when=asyncio.FIRST_COMPLETED)
    serving.cancel()
    await asyncio.wait({serving})
    message = began.result()
    return message["status"], Headers(raw=message["headers"])
