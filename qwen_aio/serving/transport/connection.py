"""One connection of a client: uvicorn's, with a time limit for every wait for the client."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from qwen_aio.errors import HeadersTooSlow, InvalidRequest, QwenAioError
from qwen_aio.serving.guard import MAX_HEADER_BYTES, MAX_LOGGED_CHARS, error_response

MAX_INCOMPLETE_BYTES = 2 * MAX_HEADER_BYTES  # of headers, with the target; see also guard.py
MAX_PIPELINED = 16  # requests that a client sends before it has read the reply to the first

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Patience:
    """Seconds after which an inactive client is disconnected. For bodies see guard.py."""

    headers_s: float = 10.0  # for all headers, from the connection or their first byte on
    idle_s: int = 75  # between two requests; longer than clients and balancers keep an idle connection
    reading_s: float = 30.0  # while the write buffer is full, or holds the end of a reply


class Connection(HttpToolsProtocol):
    """`is_extra`: over the limit of connections; its requests are refused, see Listener.

    llhttp, which reads the requests, has no limit on headers and on pipelined requests: both are here.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        state: ServerState,
        app_state: dict[str, Any],
        *,
        patience: Patience,
        is_extra: bool,
        on_lost: Callable[[Connection], None],
    ) -> None:
        super().__init__(config, state, {**app_state, "is_extra": is_extra})
        self._patience = patience
        self._on_lost = on_lost
        self.url = b""  # uvicorn sets it when a request begins, and `refuse` may come before
        self._headers = _Limit(patience.headers_s, self._end_headers)
        self._reading = _Limit(patience.reading_s, self._end_reading)
        self._is_in_headers = False  # a request has begun and its headers have not ended
        self._num_incomplete = 0  # bytes of such headers
        self._is_deaf = False  # it disconnects after the last reply, and reads no more

    @property
    def is_idle(self) -> bool:
        """Whether it waits for another request, after one whose reply the client has read."""
        return self.timeout_keep_alive_task is not None and not self.transport.get_write_buffer_size()

    @property
    def is_connecting(self) -> bool:
        """Whether nothing can be sent yet, because its TLS handshake is not over."""
        return self.transport is None

    @property
    def is_incomplete(self) -> bool:
        """Whether its request has not arrived whole, nor been answered."""
        cycle = self.cycle
        return cycle is None or (cycle.more_body and not cycle.response_started)

    @property
    def _is_answering(self) -> bool:
        """Whether a request has arrived whole whose reply has not been sent whole."""
        return not self.is_incomplete and not self.cycle.response_complete

    def refuse(self, error: QwenAioError) -> None:
        """Disconnect, with `error` as the reply. No request is being answered."""
        if self.transport.is_closing():
            return
        request_id = uuid.uuid4().hex
        path = self.url.partition(b"?")[0].decode("ascii", "backslashreplace")[:MAX_LOGGED_CHARS] or "-"
        logger.info("request refused id=%s path=%s code=%s", request_id, path, error.code)
        self.transport.write(whole_reply(error, request_id))
        self.transport.close()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """A request is expected."""
        super().connection_made(transport)
        self._headers.start()

    def connection_lost(self, exc: Exception | None) -> None:
        """No limit runs any more."""
        super().connection_lost(exc)
        self._headers.end()
        self._reading.end()
        self._on_lost(self)

    def data_received(self, data: bytes) -> None:
        """Headers that arrive byte by byte get no more time than others, and no more memory."""
        if self._is_deaf:
            return
        was_in_headers = self._is_in_headers
        super().data_received(data)
        if was_in_headers and self._is_in_headers:
            self._num_incomplete += len(data)
            if self._num_incomplete > MAX_INCOMPLETE_BYTES:
                self.send_400_response(f"the headers are larger than {MAX_INCOMPLETE_BYTES} bytes")
        if not self.transport.get_write_buffer_size():
            self._reading.end()

    def on_message_begin(self) -> None:
        """The first byte of a request. Raises OverflowError, which the parser reports as an invalid request."""
        if len(self.pipeline) >= MAX_PIPELINED:
            raise OverflowError(f"more than {MAX_PIPELINED} requests at once")
        super().on_message_begin()
        self._is_in_headers = True
        self._headers.start()

    def on_header(self, name: bytes, value: bytes) -> None:
        """What comes behind the body is left out: the request's own headers have been checked by then."""
        if self._is_in_headers:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The application gets the target as it was sent: a whole URL names the host that counts, see target.py.

        Raises ValueError without exactly one Host header (RFC 9112, 3.2), which the parser reports as invalid.
        """
        self._is_in_headers, self._num_incomplete = False, 0
        self._headers.end()
        num_hosts = sum(name == b"host" for name, _ in self.headers)
        if num_hosts > 1 or (num_hosts == 0 and self.parser.get_http_version() != "1.0"):
            raise ValueError(f"{num_hosts} Host headers")
        super().on_headers_complete()
        self.scope["raw_path"] = self.url.partition(b"?")[0]
        if self.parser.should_upgrade():  # llhttp takes what follows for another protocol
            self.cycle.keep_alive = False

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request; where replies to earlier ones are on their way, disconnect after the last."""
        if self._is_answering or self.pipeline:
            self._end_after_reply()
        else:
            self.refuse(InvalidRequest(msg))

    def pause_writing(self) -> None:
        """The buffer is full."""
        super().pause_writing()
        self._reading.start()

    def resume_writing(self) -> None:
        """The buffer is nearly empty."""
        super().resume_writing()
        self._reading.end()

    def on_response_complete(self) -> None:
        """The client has to read the rest of the buffer before the connection can be closed."""
        super().on_response_complete()
        if self.transport.get_write_buffer_size():
            self._reading.start()
        is_body_missing = self.cycle.response_complete and self.cycle.more_body
        if is_body_missing:  # uvicorn would wait for it for ever
            self._headers.start()

    def _end_after_reply(self) -> None:
        self.cycle.keep_alive = False
        self._is_deaf = True

    def _end_headers(self) -> None:
        if self._is_answering:  # its client has begun another request meanwhile
            self._end_after_reply()
            return
        if self._is_in_headers:
            self.refuse(HeadersTooSlow(f"not all headers came within {self._patience.headers_s:g} s"))
        self.transport.close()

    def _unsupported_upgrade_warning(self) -> None:
        """Clients that offer HTTP/2 or WebSockets are answered in HTTP/1.1; nobody need be warned."""

    def _end_reading(self) -> None:
        if self.transport.get_write_buffer_size():
            self.transport.abort()


def whole_reply(error: QwenAioError, request_id: str) -> bytes:
    """`error` as a whole HTTP reply, for a request that was not read."""
    response = error_response(error, request_id)
    response.headers.update({"Connection": "close", "X-Request-ID": request_id})
    status = HTTPStatus(response.status_code)
    head = [f"HTTP/1.1 {status} {status.phrase}", *(f"{name}: {value}" for name, value in response.headers.items())]
    return "\r\n".join([*head, "", ""]).encode() + response.body


class _Limit:
    """A time limit; starting it again while it runs has no effect."""

    def __init__(self, seconds: float, when_over: Callable[[], None]) -> None:
        self._seconds = seconds
        self._when_over = when_over
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self._over)

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _over(self) -> None:
        self._timer = None
        self._when_over()
