"""The target of a request in its usual form: a path, and a host in the header."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

from starlette.types import ASGIApp, Receive, Scope, Send

_ABSOLUTE = re.compile(rb"https?://(?P<authority>[^/]*)(?P<path>/.*)?", re.IGNORECASE | re.DOTALL)


class OriginForm:
    """ASGI middleware. The host of a whole URL replaces the header's (RFC 9112, 3.2.2)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on; the guard refuses a target that is neither path nor URL."""
        if found := _ABSOLUTE.fullmatch(scope.get("raw_path") or b""):
            path = found["path"] or b"/"
            scope = with_host(scope, found["authority"]) | {"path": unquote(path.decode("ascii")), "raw_path": path}
        await self._app(scope, receive, send)


def with_host(scope: Scope, host: bytes) -> dict[str, Any]:
    """`scope`, with `host` as its only Host header."""
    headers = [pair for pair in scope["headers"] if pair[0] != b"host"]
    return {**scope, "headers": [(b"host", host), *headers]}
