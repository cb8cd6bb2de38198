"""The event loop that servers run on: uvloop, or asyncio's own on Windows, where uvloop does not exist.

Both do in native code what asyncio does in Python elsewhere, and raise no audit events for it. So
the loop raises those that asyncio would: the egress guard listens to them.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

if sys.platform == "win32":
    NativeLoop = asyncio.ProactorEventLoop
else:
    from uvloop import Loop as NativeLoop

ANYWHERE = ("0.0.0.0", 0)


class AuditedLoop(NativeLoop):
    """The native loop, with an audit event before each connection and each look-up of a name."""

    async def create_connection(
        self, protocol_factory: Callable[[], Any], host: Any = None, port: Any = None, **more: Any
    ) -> Any:
        """As the loop's. Raises what a hook raises."""
        if host is not None:
            sys.audit("socket.connect", None, (host, port))
        return await super().create_connection(protocol_factory, host, port, **more)

    async def create_datagram_endpoint(
        self, protocol_factory: Callable[[], Any], local_addr: Any = None, remote_addr: Any = None, **more: Any
    ) -> Any:
        """As the loop's. Without an address of the other end it could send to any, unseen."""
        if more.get("family", socket.AF_UNSPEC) != getattr(socket, "AF_UNIX", None):
            sys.audit("socket.connect", None, remote_addr or ANYWHERE)
        return await super().create_datagram_endpoint(protocol_factory, local_addr, remote_addr, **more)

    async def sock_connect(self, sock: Any, address: Any) -> None:
        """As the loop's. uvloop raises the same event again, Windows' loop none."""
        sys.audit("socket.connect", sock, address)
        await super().sock_connect(sock, address)

    async def getaddrinfo(self, host: Any, port: Any, **more: Any) -> Any:
        """As the loop's. Raises what a hook raises."""
        found = {"family": 0, "type": 0, "proto": 0, **more}
        sys.audit("socket.getaddrinfo", host, port, found["family"], found["type"], found["proto"])
        return await super().getaddrinfo(host, port, **more)

    async def getnameinfo(self, sockaddr: Any, flags: int = 0) -> Any:
        """As the loop's. Raises what a hook raises."""
        sys.audit("socket.getnameinfo", sockaddr)
        return await super().getnameinfo(sockaddr, flags)


def new_event_loop() -> asyncio.AbstractEventLoop:
    """One that nobody runs yet."""
    return AuditedLoop()


def run(server: Coroutine[Any, Any, T]) -> T:
    """As asyncio.run."""
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(server)
