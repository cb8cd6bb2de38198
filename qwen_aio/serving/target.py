"""The target of a request in its usual form: a path, and a host in the header."""

from __future__ import annotations

import re
from urllib.parse import unquote

from starlette.types import ASGIApp, Receive, Scope, Send

_ABSOLUTE = re.compile(rb"https?://(?P<authority>[^/]*)(?P<path>/.*)?", re.IGNORECASE | re.DOTALL)


class OriginForm:
    """ASGI middleware. The host of a whole URL replaces the header's (RFC 9112, 3.2.2)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on; the guard refuses a target that is neither path nor URL."""
        found = _ABSOLUTE.fullmatch(scope.get("raw_path") or b"")
        await self._app(_with_target(scope, found) if found else scope, receive, send)


def _with_target(scope: Scope, found: re.Match[bytes]) -> Scope:
    path = found["path"] or b"/"
    headers = [(name, value) for name, value in scope["headers"] if name != b"host"]
    return {
        **scope,
        "path": unquote(path.decode("ascii")),
        "raw_path": path,
        "headers": [(b"host", found["authority"]), *headers],
    }
