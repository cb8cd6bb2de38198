"""What systemd is told of this process: that it serves, that its event loop turns, that it ends (sd_notify).

Each is a datagram to the socket that systemd names in the environment. A process that nobody asked
to report reports to nobody.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Mapping, MutableMapping

from qwen_aio.status.record import WorkerState

MESSAGES: Mapping[WorkerState, bytes] = {"ready": b"READY=1", "draining": b"STOPPING=1", "failed": b"STOPPING=1"}
PATIENCE_S = 2.0  # with a manager that does not read, when it must learn a state
SIGNS_PER_PERIOD = 2  # of life, so that one that is late does no harm
logger = logging.getLogger(__name__)


class ServiceManager:
    """Whoever started this process and wants to know its state, if anybody does."""

    def __init__(self, address: str | None = None, *, watchdog_s: float | None = None) -> None:
        """`address` is a Unix socket; within every `watchdog_s` it expects a sign of life."""
        self._address = address
        self._watchdog_s = watchdog_s

    @classmethod
    def of_process(cls, environ: MutableMapping[str, str]) -> ServiceManager:
        """The one in `environ`, from where it is removed: children do not speak for this process."""
        address, period_us, pid = (
            environ.pop(name, None) for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
        )
        is_watched = period_us is not None and period_us.isdecimal() and pid in (None, str(os.getpid()))
        return cls(address or None, watchdog_s=int(period_us) / 1e6 if period_us and is_watched else None)

    def tell(self, state: WorkerState) -> None:
        """The new state; called on the event loop, which gives signs of life from "ready" on."""
        if state not in MESSAGES:
            return
        self._send(MESSAGES[state], patience_s=PATIENCE_S)
        if state == "ready" and self._address and self._watchdog_s:
            self._give_sign(asyncio.get_running_loop(), self._watchdog_s / SIGNS_PER_PERIOD)

    def _give_sign(self, loop: asyncio.AbstractEventLoop, pause_s: float) -> None:
        self._send(b"WATCHDOG=1", patience_s=0)
        loop.call_later(pause_s, self._give_sign, loop, pause_s)

    def _send(self, message: bytes, *, patience_s: float) -> None:
        if self._address is None:
            return
        name = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address  # @: an abstract socket
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.settimeout(patience_s)
                sock.sendto(message, name)
        except OSError as exc:  # also where no more files may be opened: the next sign of life must come
            logger.warning("systemd was not told message=%s: %s", message.decode(), exc)
