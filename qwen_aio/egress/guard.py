"""The egress guard: refuses and counts what would leave this process for other machines.

Python raises an audit event before it connects, sends to an address or looks a name up. A hook on
these covers every thread and every library that is written in Python, and cannot be taken away. It
sees nothing of native code, which startup/event_loop.py and DECISIONS.md speak of, nor of other
programs. It holds back libraries that call home, not code that wants to get past it.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

from qwen_aio.egress.peers import Peers

RESOLVED = "qwen_aio.resolved"  # an event of ours, raised with a name and the addresses that it led to
MAX_LOGGED = 100  # addresses; more are counted, not logged
MAX_SHOWN_CHARS = 200
INTERNET = (socket.AF_INET, socket.AF_INET6)
# Between processes of this machine, or with its kernel.
OF_THIS_MACHINE = frozenset(getattr(socket, name) for name in ("AF_UNIX", "AF_NETLINK") if hasattr(socket, name))
# Methods of sockets that look a name up before their event, and where in their arguments the address is.
LATE = {"connect": 0, "connect_ex": 0, "sendto": -1, "sendmsg": 3}
WHY = "neither this machine nor a configured server; --offline is on (--no-offline, or offline = false, lets it out)"

logger = logging.getLogger(__name__)


class EgressRefused(PermissionError):
    """The address is neither this machine's nor a configured server's."""


class EgressGuard:
    """One per process. Counts, and refuses, from `watch` on; `peers` may change at any time."""

    def __init__(self) -> None:
        self.peers = Peers()
        self._is_watching = False
        self._events: Mapping[str, Callable[..., None]] = {
            "socket.connect": self._check_connection,
            "socket.sendto": self._check_connection,
            "socket.sendmsg": self._check_connection,
            "socket.getaddrinfo": self._check_look_up,
            "socket.gethostbyname": self._check_look_up,
            "socket.gethostbyaddr": self._check_reverse_look_up,
            "socket.getnameinfo": lambda address: self._check_reverse_look_up(address[0]),
            RESOLVED: self.peers.learn,
        }
        self._begin()

    def __repr__(self) -> str:
        return f"<EgressGuard {self.refused} refused, {self.peers}>"

    @property
    def refused(self) -> int | None:
        """Attempts of this process so far; None if nobody watches."""
        return self._num_refused if self._is_watching else None

    def watch(self) -> None:
        """From now on, for the life of this process and of its forks, which count their own."""
        if self._is_watching:
            return
        self._is_watching = True
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._begin)
        for method, place in LATE.items():
            _look_up_with_event(method, place)
        sys.addaudithook(self.on_event)

    def on_event(self, event: str, arguments: tuple[Any, ...]) -> None:
        """The hook. Raises EgressRefused."""
        check = self._events.get(event)
        if check is not None:
            check(*arguments)

    def _begin(self) -> None:
        """Count from zero: at the start, and in a fork, where another thread may have held the lock."""
        self._lock = threading.RLock()  # a signal's handler may connect while this thread counts
        self._num_refused = 0
        self._logged: set[str] = set()

    def _check_connection(self, sock: socket.socket | None, address: Any) -> None:
        """`sock` is None where an event loop has none yet; `address` is None where it is connected already."""
        family = socket.AF_INET if sock is None else sock.family
        if address is None or family in OF_THIS_MACHINE:
            return
        if family not in INTERNET:
            self._refuse(f"{address}")
        elif not self.peers.may_reach(*address[:2]):
            self._refuse(f"{_text(address[0])} port {address[1]}")

    def _check_look_up(self, host: object, *_: object) -> None:
        if not self.peers.may_look_up(host):
            self._refuse(_text(host))

    def _check_reverse_look_up(self, host: object) -> None:
        if not self.peers.may_ask_about(host):
            self._refuse(_text(host))

    def _refuse(self, address: str) -> None:
        """Count it, log a new address once. Raises EgressRefused."""
        address = address[:MAX_SHOWN_CHARS]
        with self._lock:
            self._num_refused += 1
            is_new = address not in self._logged and len(self._logged) < MAX_LOGGED
            if is_new:
                self._logged.add(address)
        if is_new:
            logger.warning("egress refused address=%s: %s; more attempts are only counted", address, WHY)
        raise EgressRefused(errno.EPERM, f"{address} is refused: {WHY}")


def _text(host: object) -> str:
    return bytes(host).decode("latin-1") if isinstance(host, bytes | bytearray) else str(host)


def _look_up_with_event(method: str, place: int) -> None:
    """Raise the event of a look-up before `method` of every socket looks up a name in its address by itself."""
    original = getattr(socket.socket, method)

    @wraps(original)
    def call(self: socket.socket, *arguments: Any) -> Any:
        address = arguments[place] if place < len(arguments) and arguments else None
        if isinstance(address, tuple) and address and isinstance(address[0], str | bytes | bytearray):
            sys.audit("socket.getaddrinfo", address[0], None, self.family, self.type, self.proto)
        return original(self, *arguments)

    setattr(socket.socket, method, call)
