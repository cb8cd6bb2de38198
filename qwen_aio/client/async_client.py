"""Async client of a worker or a balancer: requests and events of core.py here, HTTP there.

Raises the error that the server raised, by its own class. ServerUnreachable: no connection.
ConnectionLost: the connection broke. BadReply: the reply is not one of qwen_aio. Uses no proxy:
a text for one's own machine must not pass through another's.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from types import MappingProxyType
from typing import Any, TypeVar

import aiohttp
from aiohttp.abc import ResolveResult

from qwen_aio.bounds import MAX_TIMEOUT_S
from qwen_aio.client.frames import FrameReader
from qwen_aio.core import Capabilities, EngineRequest, Request
from qwen_aio.egress.guard import RESOLVED
from qwen_aio.errors import BadReply, ConnectionLost, ServerUnreachable
from qwen_aio.result import Answer, Decision, Done, EngineEvent, Event, Result
from qwen_aio.wire.engine import ENGINE_PATH, TOKENS_PATH, TokensResponse, engine_request_to_json, read_engine_event
from qwen_aio.wire.error import ErrorResponse
from qwen_aio.wire.event import read_event
from qwen_aio.wire.request import RunRequest
from qwen_aio.wire.result import RunResponse
from qwen_aio.wire.shape import JSON_MEDIA
from qwen_aio.wire.task import TasksResponse

RUN_PATH = "/v1/run"
CONNECT_TIMEOUT_S = 5.0
ABOUT_TIMEOUT_S = 10.0
DEADLINE_MARGIN_S = 10.0  # the server keeps the deadline; this is for a server that hangs
READ_OUT_S = 0.5  # for what follows the last event
MAX_REPLY_BYTES = 16_000_000
NO_HEADERS: Mapping[str, str] = MappingProxyType({})
NO_CONNECTION = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.InvalidURL,
    aiohttp.NonHttpUrlClientError,
)

T = TypeVar("T")


class AsyncClient(AbstractAsyncContextManager["AsyncClient"]):
    """A client of one address. An async context manager, to be used on one event loop."""

    def __init__(self, base_url: str, *, key: str | Callable[[], str] = "", tls: ssl.SSLContext | None = None) -> None:
        """`key` is sent with every request, unless it is empty; a function is asked for it each time.

        `tls`: how the server of an https address is checked; None: with the system's authorities.
        """
        self._url = base_url.rstrip("/")
        self._key = key
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None

    def __repr__(self) -> str:
        return f"<AsyncClient {self._url}>"

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Give the connections back."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def run(self, request: Request) -> Result:
        """The result. Raises what the server raises, ServerUnreachable."""
        async with self._post(RUN_PATH, _run_body(request, stream=False), request) as response:
            return RunResponse.model_validate_json(await _body(response)).to_core()

    def stream(self, request: Request) -> AsyncGenerator[Event, None]:
        """Decided?, TextDelta*, Done. Closing it disconnects and ends the work. Raises as `run`."""
        return self._events(RUN_PATH, _run_body(request, stream=True), request, read_event, ends=Done)

    def execute(self, request: EngineRequest) -> AsyncGenerator[EngineEvent, None]:
        """The EngineEvents of a worker's engine. Otherwise as `stream`."""
        body = engine_request_to_json(request)
        return self._events(ENGINE_PATH, body, request, read_engine_event, ends=(Decision, Answer))

    async def tokenize(self, request: EngineRequest) -> list[int]:
        """The token ids of the prompt that a worker's engine would get. Raises as `run`."""
        async with self._post(TOKENS_PATH, engine_request_to_json(request), request) as response:
            return TokensResponse.model_validate_json(await _body(response)).tokens

    async def capabilities(self) -> Capabilities:
        """What can be asked for, without the templates of tasks. Raises what `run` raises."""
        async with self._exchange("GET", "/v1/tasks", timeout_s=ABOUT_TIMEOUT_S) as response:
            await _raise_refusal(response)
            return TasksResponse.model_validate_json(await _body(response)).to_core()

    async def health(self) -> dict[str, Any]:
        """The record of GET /health, also before it is ready. Raises ServerUnreachable, KeyRefused."""
        async with self._exchange("GET", "/health", timeout_s=ABOUT_TIMEOUT_S) as response:
            if response.status == 401:
                await _raise_refusal(response)
            record = json.loads(await _body(response))
            if not isinstance(record, dict) or "state" not in record:
                raise ValueError("not a health record")
            return record

    @asynccontextmanager
    async def _post(
        self, path: str, body: bytes, request: Request | EngineRequest
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        known = {"X-Request-ID": request.request_id, "traceparent": request.traceparent}
        headers = {"Content-Type": JSON_MEDIA} | {name: value for name, value in known.items() if value}
        limit_s = (request.timeout_s or MAX_TIMEOUT_S) + DEADLINE_MARGIN_S
        async with self._exchange("POST", path, timeout_s=limit_s, data=body, headers=headers) as response:
            await _raise_refusal(response)
            yield response

    @asynccontextmanager
    async def _exchange(
        self, method: str, path: str, *, timeout_s: float, headers: Mapping[str, str] = NO_HEADERS, **more: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One exchange. Failures on the way, also while the body is read, become QwenAioErrors."""
        self._session = self._session or self._new_session()
        timeout = aiohttp.ClientTimeout(total=timeout_s, connect=CONNECT_TIMEOUT_S)
        key = self._key if isinstance(self._key, str) else self._key()
        headers = {**headers, "Authorization": f"Bearer {key}"} if key else headers
        requesting = self._session.request(
            method, self._url + path, timeout=timeout, headers=headers, allow_redirects=False, **more
        )
        try:
            async with requesting as response:
                yield response
        except NO_CONNECTION as exc:
            raise ServerUnreachable(f"no answer from {self._url} ({_why(exc)}); {self._check}") from exc
        except (aiohttp.ClientResponseError, ValueError, RecursionError) as exc:
            raise BadReply(f"{self._url} answers, but not as qwen_aio does; {self._check}") from exc
        except (aiohttp.ClientError, TimeoutError) as exc:
            raise ConnectionLost(f"no answer from {self._url} ({_why(exc)}); {self._check}") from exc

    def _new_session(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(limit=0, ssl=self._tls or True, resolver=AuditedResolver())
        return aiohttp.ClientSession(trust_env=False, connector=connector)

    async def _events(
        self,
        path: str,
        body: bytes,
        request: Request | EngineRequest,
        read: Callable[[str, bytes], T | None],
        *,
        ends: type | tuple[type, ...],
    ) -> AsyncGenerator[T, None]:
        """The known events of a stream, up to one that `ends` it. ConnectionLost if none does."""
        frames = FrameReader()
        async with self._post(path, body, request) as response:
            async for chunk in response.content.iter_any():
                for event in (read(name, data) for name, data in frames.feed(chunk)):
                    if isinstance(event, ends):
                        await _read_out(response)
                    if event is not None:
                        yield event
                    if isinstance(event, ends):
                        return
            raise ConnectionLost(f"{self._url} hung up in the middle of an answer; {self._check}")

    @property
    def _check(self) -> str:
        return f"is that the right address, and does it run? Try: curl {self._url}/health"


class AuditedResolver(aiohttp.ThreadedResolver):
    """The system's look-up of names, which tells the egress guard, if there is one, where a name led.

    aiohttp would else take pycares where that is installed, whose native look-ups no guard sees.
    """

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Raises OSError."""
        found = await super().resolve(host, port, family)
        sys.audit(RESOLVED, host, [each["host"] for each in found])
        return found


async def _read_out(response: aiohttp.ClientResponse) -> None:
    """Read to the end of the body, so that the connection can be used again. May fail freely."""
    with suppress(aiohttp.ClientError, TimeoutError):
        async with asyncio.timeout(READ_OUT_S):
            async for _ in response.content.iter_any():
                pass


def _run_body(request: Request, *, stream: bool) -> bytes:
    return RunRequest.from_core(request, stream=stream).model_dump_json(exclude_none=True).encode()


async def _body(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_REPLY_BYTES:
            raise ValueError(f"a reply has more than {MAX_REPLY_BYTES} bytes")
    return bytes(body)


async def _raise_refusal(response: aiohttp.ClientResponse) -> None:
    if response.status == 200:
        return
    refusal = ErrorResponse.model_validate_json(await _body(response))
    wait = response.headers.get("Retry-After", "")
    raise refusal.to_core(retry_after_s=int(wait) if wait.isdecimal() else None)


def _why(exc: Exception) -> str:
    if isinstance(exc, aiohttp.ClientConnectorError) and isinstance(exc.os_error, ssl.SSLCertVerificationError):
        return f"nobody who is trusted vouches for its certificate: {exc.os_error.verify_message}"
    if isinstance(exc, aiohttp.ClientConnectorError) and isinstance(exc.os_error, ssl.SSLError):
        return f"TLS fails: {exc.os_error.reason}"
    if isinstance(exc, aiohttp.ClientConnectorError):
        number = exc.os_error.errno or 0
        # asyncio replaces the system's message by its own, which repeats the address.
        return os.strerror(number) if number > 0 else exc.os_error.strerror or str(exc.os_error)
    return str(exc) or "it took too long"
