"""Takes connections in, as many as there is room for, and refuses the others in words.

asyncio's own listener accepts whatever comes, and where the system has no file left it tells so in thousands of
tracebacks a second. Here the room is known before: every connection may need a second file (a page's stylesheet, a
balancer's own connection to a worker), and some are kept back for the rest of the process.

At the bound, a connection that is idle between two requests gives way. Those that find no room are extra: what they ask
is refused, but for the probes. There are a few places for them, too; the oldest whose request has not come whole gives
way.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import psutil  # type: ignore[import-untyped]  # it ships no types

from qwen_aio.errors import InvalidSettings, TooManyConnections
from qwen_aio.serving.connection import Connection, whole_reply

MAX_CONNECTIONS = 2000
EXTRA_CONNECTIONS = 6
FILES_KEPT = 12  # for status.json, its lock and what else a process opens now and then
FEWEST_CONNECTIONS = 2
BACKLOG = 2048
ACCEPTED_AT_ONCE = 16
SILENCE_S = 1.0  # between two lines about the same
RETRY_S = 0.1

logger = logging.getLogger(__name__)


class MakeConnection(Protocol):
    """Makes a Connection, with all that a listener does not know."""

    def __call__(self, *, is_extra: bool, on_lost: Callable[[Connection], None]) -> Connection: ...


@dataclass(frozen=True)
class Room:
    """How many connections are served at once, and how many more are told that they are not."""

    served: int = MAX_CONNECTIONS
    extra: int = EXTRA_CONNECTIONS

    @classmethod
    def of_process(cls) -> Room:
        """What the limit of open files allows, after it was raised as far as need be. Raises InvalidSettings."""
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
    """Accepts on `sock`, which others close. `make` makes what serves a connection."""

    def __init__(self, sock: socket.socket, make: MakeConnection, *, room: Room) -> None:
        sock.setblocking(False)
        sock.listen(BACKLOG)
        self._sock = sock
        self._make = make
        self._room = room
        self._served: dict[Connection, None] = {}  # the oldest first
        self._extra: dict[Connection, None] = {}
        self._connecting: set[asyncio.Task[None]] = set()
        self._num_refused = 0
        self._silent_until = 0.0

    async def run(self) -> None:
        """Accept until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _ = await loop.sock_accept(self._sock)
            except OSError as exc:  # somebody else has used up the files; or the client has gone
                self._tell("cannot accept connections: %s, open=%d", exc.strerror, len(self._served))
                await asyncio.sleep(RETRY_S)
                continue
            self._take(sock)
            if len(self._served) >= self._room.served or len(self._connecting) >= ACCEPTED_AT_ONCE:
                await self._let_begin()

    async def _let_begin(self) -> None:
        """So that what those who were taken send can be heard before the next one is judged."""
        await asyncio.sleep(0)
        if self._connecting:
            await asyncio.wait(self._connecting)

    def _take(self, sock: socket.socket) -> None:
        is_extra = len(self._served) >= self._room.served and not self._idle_gives_way()
        if is_extra:
            self._num_refused += 1
            self._tell("no room for more connections: open=%d refused=%d", len(self._served), self._num_refused)
            if len(self._extra) >= self._room.extra and not self._silent_gives_way():
                _refuse(sock, self._refusal())
                return
        connection = self._make(is_extra=is_extra, on_lost=self._forget)
        (self._extra if is_extra else self._served)[connection] = None
        connecting = asyncio.create_task(self._connect(connection, sock))
        self._connecting.add(connecting)
        connecting.add_done_callback(self._connecting.discard)

    async def _connect(self, connection: Connection, sock: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: connection, sock)
        except OSError:  # the client has gone
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

    def _silent_gives_way(self) -> bool:
        silent = next((connection for connection in self._extra if connection.is_silent), None)
        if silent is not None:
            self._forget(silent)
            silent.refuse(self._refusal())
        return silent is not None

    def _refusal(self) -> TooManyConnections:
        return TooManyConnections(f"{len(self._served)} connections are open, and no more are taken", retry_after_s=1)

    def _tell(self, line: str, *values: object) -> None:
        """One line a second at most: whoever floods us must not flood the log."""
        now = time.monotonic()
        if now >= self._silent_until:
            self._silent_until = now + SILENCE_S
            logger.warning(line, *values)


def _refuse(sock: socket.socket, error: TooManyConnections) -> None:
    """Answer and hang up without having listened."""
    with sock, suppress(OSError):
        sock.send(whole_reply(error))
        sock.shutdown(socket.SHUT_WR)
        sock.recv(65536)  # what lies there unread would make the system take the reply back


def _raised_limit(wanted: int) -> int:
    """How many files this process may open now, `wanted` if it may have so many."""
    import resource  # Windows has none

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    possible = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft == resource.RLIM_INFINITY or soft >= possible:
        return wanted if soft == resource.RLIM_INFINITY else soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (possible, hard))
    except (ValueError, OSError):  # macOS allows fewer than it says
        return soft
    return possible
