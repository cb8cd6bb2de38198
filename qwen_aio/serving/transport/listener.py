"""Accepts connections up to a limit, and refuses the others with an error.

asyncio's own listener has no limit, and when the process runs out of files it logs thousands of
tracebacks a second. Here the limit follows from the open files that the process may have: every
connection may need a second one (a page's stylesheet, a balancer's own connection to a worker), and
some are reserved for the rest of the process.

At the limit, a connection that is idle between two requests is closed for a new one. Connections
over the limit are extra: their requests are refused, except probes. The number of extra connections
is limited too; the oldest one whose request has not arrived whole is closed for a new one, also in
the middle of a TLS handshake, since probes must get through whoever is slow.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psutil  # type: ignore[import-untyped]  # it ships no types

from qwen_aio.errors import InvalidSettings, TooManyConnections
from qwen_aio.serving.transport.connection import Connection, whole_reply
from qwen_aio.serving.transport.tls import HANDSHAKE_S, SHUTDOWN_S, Certificate

MAX_CONNECTIONS = 2000
EXTRA_CONNECTIONS = 6
FILES_KEPT = 12  # for status.json, its lock and what else a process opens now and then
FEWEST_CONNECTIONS = 2
BACKLOG = 2048
ACCEPTED_AT_ONCE = 16
SILENCE_S = 1.0  # between two warnings
RETRY_S = 0.1

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Room:
    """How many connections are served at once, and how many more are refused with an error."""

    served: int = MAX_CONNECTIONS
    extra: int = EXTRA_CONNECTIONS

    @classmethod
    def of_process(cls) -> Room:
        """As many as open files allow; raises their limit first. Raises InvalidSettings."""
        if sys.platform == "win32":  # it has no such limit
            return cls()
        others = psutil.Process().num_fds() + FILES_KEPT + EXTRA_CONNECTIONS
        limit = _raised_limit(others + 2 * MAX_CONNECTIONS)
        left = limit - others
        if left < 2 * FEWEST_CONNECTIONS:
            least = others + 2 * FEWEST_CONNECTIONS
            raise InvalidSettings(f"this process may open {limit} files and needs {least}: raise the limit (ulimit -n)")
        return cls(min(MAX_CONNECTIONS, left // 2))


class Listener:
    """Accepts on `sock`, which its owner closes. `make`: is_extra and on_lost -> Connection."""

    def __init__(
        self, sock: socket.socket, make: Callable[..., Connection], *, room: Room, certificate: Certificate | None
    ) -> None:
        sock.setblocking(False)
        sock.listen(BACKLOG)
        self._sock = sock
        self._make = make
        self._room = room
        self._certificate = certificate
        self._served: dict[Connection, None] = {}  # the oldest first
        self._extra: dict[Connection, None] = {}
        self._connecting: dict[Connection, asyncio.Task[None]] = {}
        self._num_refused = 0
        self._silent_until = 0.0

    async def run(self) -> None:
        """Accept until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _ = await loop.sock_accept(self._sock)
            except OSError as exc:  # out of files, or the client has disconnected
                self._warn("cannot accept connections: %s, open=%d", exc.strerror, len(self._served))
                await asyncio.sleep(RETRY_S)
                continue
            self._take(sock)
            if len(self._served) >= self._room.served or len(self._connecting) >= ACCEPTED_AT_ONCE:
                await self._let_begin()

    async def _let_begin(self) -> None:
        """Let accepted connections read what was sent, so that their state is known to the next."""
        await asyncio.sleep(0)
        if self._connecting and self._certificate is None:  # handshakes take as long as clients like
            await asyncio.wait(self._connecting.values())

    def _take(self, sock: socket.socket) -> None:
        is_extra = len(self._served) >= self._room.served and not self._idle_gives_way()
        if is_extra:
            self._num_refused += 1
            self._warn("no room for more connections: open=%d refused=%d", len(self._served), self._num_refused)
            if len(self._extra) >= self._room.extra and not self._incomplete_gives_way():
                if self._certificate is None:
                    _refuse(sock, self._refusal())
                else:  # before the handshake no client could read a word
                    sock.close()
                return
        connection = self._make(is_extra=is_extra, on_lost=self._forget)
        (self._extra if is_extra else self._served)[connection] = None
        connecting = self._connecting[connection] = asyncio.create_task(self._connect(connection, sock))
        connecting.add_done_callback(lambda _: self._connecting.pop(connection))

    async def _connect(self, connection: Connection, sock: socket.socket) -> None:
        tls: dict[str, Any] = {}
        if self._certificate is not None:
            times = {"ssl_handshake_timeout": HANDSHAKE_S, "ssl_shutdown_timeout": SHUTDOWN_S}
            tls = {"ssl": self._certificate.context(), **times}
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: connection, sock, **tls)
        except OSError:  # the client has disconnected, or does not speak TLS
            self._forget(connection)
            sock.close()

    def _forget(self, connection: Connection) -> None:
        self._served.pop(connection, None)
        self._extra.pop(connection, None)

    def _idle_gives_way(self) -> bool:
        idle = next((connection for connection in self._served if connection.is_idle), None)
        if idle is not None:
            self._forget(idle)
            idle.timeout_keep_alive_handler()
        return idle is not None

    def _incomplete_gives_way(self) -> bool:
        incomplete = next((connection for connection in self._extra if connection.is_incomplete), None)
        if incomplete is not None:
            self._forget(incomplete)
            if incomplete.is_connecting:
                self._connecting[incomplete].cancel()  # closes its socket
            else:
                incomplete.refuse(self._refusal())
        return incomplete is not None

    def _refusal(self) -> TooManyConnections:
        return TooManyConnections(f"{len(self._served)} connections are open, and no more are taken", retry_after_s=1)

    def _warn(self, line: str, *values: object) -> None:
        """One line a second at most: a flood of connections must not flood the log."""
        now = time.monotonic()
        if now >= self._silent_until:
            self._silent_until = now + SILENCE_S
            logger.warning(line, *values)


def _refuse(sock: socket.socket, error: TooManyConnections) -> None:
    """Answer and disconnect without reading the request."""
    with sock, suppress(OSError):
        sock.send(whole_reply(error, uuid.uuid4().hex))
        sock.shutdown(socket.SHUT_WR)
        sock.recv(65536)  # unread data would make the system reset the connection, reply included


def _raised_limit(wanted: int) -> int:
    """The number of files that this process may open now; raised to `wanted` if possible."""
    import resource  # Windows has none

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    possible = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    with suppress(ValueError, OSError):  # macOS allows fewer than it says
        if soft < possible:
            resource.setrlimit(resource.RLIMIT_NOFILE, (possible, hard))
            return possible
    return soft
