"""Requests through a reverse proxy: the host name that the client used, and the root path.

Any client can send X-Forwarded-*, so the headers count only on connections from the proxies that
the operator lists. The guard, which comes next, checks the forwarded name as it checks every Host.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from qwen_aio.config import ROOT_PATH
from qwen_aio.serving.transport.target import with_host

MAX_ADDRESS_CHARS = 64
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class ProxySettings:
    """`root_path` is the server's path on the proxy, "/qwen" or ""; `trusted` are the proxies."""

    root_path: str = ""
    trusted: tuple[Network, ...] = ()


class Proxied:
    """ASGI middleware, outside of the guard. Removes the root path, if the proxy has not."""

    def __init__(self, app: ASGIApp, *, proxy: ProxySettings) -> None:
        self._app = app
        self._proxy = proxy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on the request as the client sent it to the proxy."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        root_path = self._proxy.root_path
        if self._is_trusted(scope):
            headers = Headers(scope=scope)
            if names := headers.getlist("x-forwarded-host"):
                # Two are refused: with a proxy that appends to the header, a client could choose.
                scope = with_host(scope, ", ".join(names).encode("latin-1"))
            scope = self._with_client(scope, headers)
            prefix = headers.get("x-forwarded-prefix", "").rstrip("/")
            root_path = prefix if re.fullmatch(ROOT_PATH, prefix) else root_path
        if root_path and scope["path"] == root_path:
            # The page's addresses are relative: they need the slash.
            await RedirectResponse(f"{root_path}/", 308)(scope, receive, send)
        else:
            await self._app(_without_root_path(scope, root_path), receive, send)

    def _is_trusted(self, scope: Scope) -> bool:
        return bool(self._proxy.trusted and scope.get("client")) and self._is_proxy(scope["client"][0])

    def _is_proxy(self, address: str) -> bool:
        try:
            peer = ipaddress.ip_address(address)
        except ValueError:
            return False
        peer = getattr(peer, "ipv4_mapped", None) or peer  # a socket that listens on :: sees IPv4 in this form
        return any(peer in network for network in self._proxy.trusted)

    def _with_client(self, scope: Scope, headers: Headers) -> Scope:
        """`scope` from the last address in X-Forwarded-For that is no proxy's: a client may write what is before it."""
        stated = [part.strip() for line in headers.getlist("x-forwarded-for") for part in line.split(",")]
        client = next((address for address in reversed(stated) if not self._is_proxy(address)), None)
        return scope if client is None else {**scope, "client": (client[:MAX_ADDRESS_CHARS], 0)}


def _without_root_path(scope: Scope, root_path: str) -> Scope:
    if not root_path or not scope["path"].startswith(f"{root_path}/"):
        return scope
    raw_path = scope.get("raw_path") or b""
    return {**scope, "path": scope["path"][len(root_path) :], "raw_path": raw_path.removeprefix(root_path.encode())}
