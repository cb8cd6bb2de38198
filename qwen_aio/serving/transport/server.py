"""The process around the application: its port, its signals, and the order in which it ends.

    first signal      new requests are refused, those in flight finish; exit code 0
    grace is over     requests still in flight get an error
    second signal     everything ends at once
    `life` fails      requests in flight get an error, and the failure is raised

Knows neither engine nor tasks: the composition root passes a `life`.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from qwen_aio.errors import InvalidSettings, QwenAioError
from qwen_aio.serving.admission import AdmissionGate
from qwen_aio.serving.interruption import cancel
from qwen_aio.serving.transport.connection import Connection, Patience
from qwen_aio.serving.transport.listener import Listener, Room
from qwen_aio.serving.transport.tls import Certificate

GRACE_S = 30.0
PATIENCE = Patience()
LAST_WORDS_S = 2.0  # for sending the error to clients that were cut off
TRIED_PORTS = 100
SIGNALS = (signal.SIGINT, signal.SIGTERM)

logger = logging.getLogger(__name__)


def bind(host: str, port: int, *, flag: str = "--port") -> socket.socket:
    """A socket that owns `port` (0: any free one) and queues connections until the server runs.

    `flag` chooses another port. Raises InvalidSettings.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named: asyncio sets TCP_NODELAY only on a socket that says it is TCP. Without
    # it, a reply in two packets waits 40 ms for the client's delayed acknowledgement.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":  # a restart would find its own port taken for a minute; Windows means something else
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen()  # two processes can bind one port, but only one can listen
    except OSError as exc:
        sock.close()
        why = "it is in use; stop what runs there" if exc.errno == errno.EADDRINUSE else exc.strerror
        other = flag if exc.errno in (errno.EADDRINUSE, errno.EACCES) else "--host"
        shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        raise InvalidSettings(f"cannot listen on {shown}: {why}, or choose another with {other}") from exc
    return sock


def bind_first_free(host: str, start: int) -> socket.socket:
    """As `bind`, on the first free port from `start` on."""
    for port in range(start, start + TRIED_PORTS):
        try:
            return bind(host, port)
        except InvalidSettings as exc:
            if not isinstance(exc.__cause__, OSError) or exc.__cause__.errno != errno.EADDRINUSE:
                raise
    raise InvalidSettings(f"no free port from {start} to {start + TRIED_PORTS - 1}; choose one with --port")


async def run_server(
    app: ASGIApp,
    *,
    sock: socket.socket,
    gate: AdmissionGate,
    life: Callable[[], Coroutine[Any, Any, None]],
    grace_s: float = GRACE_S,
    patience: Patience = PATIENCE,
    room: Room | None = None,
    certificate: Certificate | None = None,
) -> int:
    """Serve `app` on `sock` until `life` ends or a signal comes; the exit code of the process.

    `life` loads, opens the gate, and waits for a failure; it is cancelled after the last request.
    `room` defaults to all that the process has; with a `certificate` it speaks TLS. The code is 0 after a signal,
    128 + signal after a second one. Raises what `life` raised, and InvalidSettings if there are too few open files.
    """
    server = _Server(app, sock, patience=patience, room=room or Room.of_process(), certificate=certificate)
    serving = asyncio.create_task(server.serve([]), name="http server")
    living = asyncio.create_task(life(), name="life of the server")
    second: int | None = None
    try:
        with caught_signals() as signals:
            if await _signal_before(signals, serving, living):
                second = await _drain(gate, signals, living, grace_s=grace_s)
            if living.done() and not living.cancelled() and (failure := living.exception()):
                # Messages of other exceptions are not meant for clients.
                gate.fail(failure.message if isinstance(failure, QwenAioError) else "this server has failed and ends")
            await _cut_off(gate)
    finally:  # from here on signals have their default effect
        server.end(at_once=second is not None)
        await asyncio.wait({serving})
        await cancel(living)
    serving.result()
    if not living.cancelled():
        living.result()
    return 0 if second is None else 128 + second


class _Server(uvicorn.Server):
    """uvicorn without its listener and its signal handlers, which raise signals again."""

    def __init__(
        self,
        app: ASGIApp,
        sock: socket.socket,
        *,
        patience: Patience,
        room: Room,
        certificate: Certificate | None,
    ) -> None:
        super().__init__(_config(app, patience))
        self._sock = sock
        self._patience = patience
        self._room = room
        self._certificate = certificate
        self._last_words_s = 0.5

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def end(self, *, at_once: bool) -> None:
        """Close the listener and the connections."""
        if at_once:
            self._last_words_s = 0.0
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """uvicorn's, with the Listener of listener.py."""
        await super().startup(sockets)
        make = partial(Connection, self.config, self.server_state, self.lifespan.state, patience=self._patience)
        listener = Listener(self._sock, make, room=self._room, certificate=self._certificate)
        self._accepting = asyncio.create_task(listener.run(), name="listener")
        self._accepting.add_done_callback(lambda _: self.end(at_once=False))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """uvicorn's, but closes open connections: cancelled tasks would look like a crash.

        Raises what the listener raised: a server that accepts no more must not go on.
        """
        await cancel(self._accepting)
        self._sock.close()
        hanging_up = asyncio.get_running_loop().call_later(self._last_words_s, self._hang_up)
        await super().shutdown(sockets)
        hanging_up.cancel()
        if not self._accepting.cancelled():
            self._accepting.result()

    def _hang_up(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.close()


def _config(app: ASGIApp, patience: Patience) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,  # the pipeline logs a line per request
        proxy_headers=False,
        workers=1,  # else uvicorn reads WEB_CONCURRENCY, and fails on what is no number
        server_header=False,
        timeout_keep_alive=patience.idle_s,
        timeout_graceful_shutdown=2,
    )


async def _drain(
    gate: AdmissionGate, signals: asyncio.Queue[int], living: asyncio.Task[None], *, grace_s: float
) -> int | None:
    """Wait for the requests in flight or the end of `life`; a second signal's number, if any."""
    gate.drain()
    logger.info("draining in_flight=%d", gate.in_flight)
    empty = asyncio.create_task(gate.wait_empty())
    try:
        return await _signal_before(signals, empty, living, timeout_s=grace_s)
    finally:
        await cancel(empty)


async def _signal_before(
    signals: asyncio.Queue[int], *others: asyncio.Task[None], timeout_s: float | None = None
) -> int | None:
    """The next signal; None if one of `others` is done, or the time is over, before it comes."""
    coming = asyncio.create_task(signals.get())
    try:
        await asyncio.wait({coming, *others}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        return coming.result() if coming.done() else None
    finally:
        await cancel(coming)


async def _cut_off(gate: AdmissionGate) -> None:
    """End the requests in flight, if any."""
    gate.drain()
    gate.cut_off()
    try:
        await asyncio.wait_for(gate.wait_empty(), LAST_WORDS_S)
    except TimeoutError:
        logger.warning("still in flight at the end: %d", gate.in_flight)


@contextmanager
def caught_signals() -> Iterator[asyncio.Queue[int]]:
    """A queue that gets every signal, which then does not end the process."""
    loop = asyncio.get_running_loop()
    signals: asyncio.Queue[int] = asyncio.Queue()
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        # Not loop.add_signal_handler, which Windows lacks.
        signal.signal(number, lambda number, _: loop.call_soon_threadsafe(signals.put_nowait, number))
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
