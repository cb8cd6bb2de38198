"""The guard before every route, the page included: request id, Host, Origin, key, body, safe headers.

Reads the whole body, which has a small limit, before any route runs, so that no route can forget
the limit. Pure ASGI: a middleware that wraps requests would hide a client's disconnect. Knows no
tasks.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Callable, Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from qwen_aio.errors import (
    BodyTooLarge,
    BodyTooSlow,
    HostRefused,
    InvalidRequest,
    OriginRefused,
    QwenAioError,
    TooManyConnections,
    UnsupportedMedia,
)
from qwen_aio.serving.access.limits import NO_LIMITS, RateLimits
from qwen_aio.serving.access.rules import LOGIN_PATH, OPEN_ACCESS, Access, client_of, is_limited, rule_of
from qwen_aio.serving.traceparent import traceparent_of
from qwen_aio.wire.engine import ENGINE_PATH, MAX_ENGINE_REQUEST_BYTES, TOKENS_PATH
from qwen_aio.wire.error import ErrorResponse, error_headers, http_status
from qwen_aio.wire.request import MAX_BODY_BYTES
from qwen_aio.wire.shape import JSON_MEDIA

BODY_TIMEOUT_S = 30.0
# A client reads the refusal only after it has sent its body; beyond this it is disconnected.
MAX_DISCARDED_BYTES = 16 * MAX_BODY_BYTES
MAX_STRANGER_BYTES = 4096  # where no key is needed, so that strangers cannot fill the memory
MAX_LOGGED_CHARS = 200  # of a path
MAX_HEADER_BYTES = 32 * 1024
LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
FORM_MEDIA = "application/x-www-form-urlencoded"  # what a browser sends without a script
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
# Load balancers send no name, or the address of a container; the replies hold no secrets.
PROBE_PATHS = frozenset({"/livez", "/readyz"})
HEALTH_PATHS = PROBE_PATHS | {"/health"}
logger = logging.getLogger(__name__)
_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

# Makes the JSON reply of a refusal one for its client.
Worded = Callable[[QwenAioError, Response, Scope], Response]


def as_json(_: QwenAioError, response: Response, __: Scope) -> Response:
    """Every client is a program."""
    return response


class Guard:
    """ASGI middleware. `allowed_hosts`: besides loopback; `page_csp`: policy of HTML replies."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        allowed_hosts: Collection[str] = (),
        access: Access = OPEN_ACCESS,
        limits: RateLimits = NO_LIMITS,
        page_csp: str = "default-src 'self'",
        worded: Worded = as_json,
        body_timeout_s: float = BODY_TIMEOUT_S,
    ) -> None:
        self._app = app
        self._hosts = LOOPBACK | {_host_name(name) for name in allowed_hosts}
        self._access = access
        self._limits = limits
        self._page_csp = page_csp
        self._worded = worded
        self._body_timeout_s = body_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass sound requests on; refuse the others."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)  # WebSockets are off, see server.py
        state = scope.setdefault("state", {})
        request_id = state["request_id"] = _request_id(request.headers)
        state |= {"traceparent": traceparent_of(request.headers), "tokens": 0}
        began = time.monotonic()
        is_extra = state.get("is_extra", False)  # see Connection
        send = self._with_headers(send, scope, began, closes=is_extra)
        try:
            try:
                body = await self._checked_body(request)
                if is_extra and scope["path"] not in PROBE_PATHS:
                    raise TooManyConnections("as many connections are open as may be; try again soon", retry_after_s=1)
            except QwenAioError as exc:
                state["code"] = exc.code
                await self._worded(exc, error_response(exc, request_id), scope)(scope, receive, send)
            else:
                await self._app(scope, _replay(body, receive), send)
        except ClientDisconnect:  # no reply can reach it
            _log_left(scope)
        finally:
            if "client" in state:
                self._limits.charge(state["client"], state["tokens"])

    async def _checked_body(self, request: Request) -> bytes:
        """The body of a sound request. Raises QwenAioError, ClientDisconnect."""
        headers, path, is_safe = request.headers, request.scope["path"], request.method in SAFE_METHODS
        if not path.startswith("/"):
            raise InvalidRequest("the target of the request is neither a path nor a URL that begins with http://")
        if path not in PROBE_PATHS or not is_safe:
            self._check_host(headers)
        if not is_safe:
            _check_origin(headers)
        self._access.check(request)  # before the body, which takes memory
        if self._limits.is_on and is_limited(request):
            client = request.scope["state"]["client"] = client_of(request)
            self._limits.admit(client)
        _check_framing(headers)
        body = await self._read_body(request)
        if body and not is_safe:
            _check_media(headers, {JSON_MEDIA, FORM_MEDIA} if path == LOGIN_PATH else {JSON_MEDIA})
        return body

    def _with_headers(self, send: Send, scope: Scope, began: float, *, closes: bool) -> Send:
        request_id = scope["state"]["request_id"]

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                if message["status"] >= 400 and not _is_report(scope):
                    _log_refused(scope, message["status"], seconds=time.monotonic() - began)
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                if closes:
                    headers["Connection"] = "close"
                headers["X-Content-Type-Options"] = "nosniff"
                if "client" in scope["state"]:
                    headers.update(self._limits.headers(scope["state"]["client"]))
                headers.setdefault("Referrer-Policy", "no-referrer")
                if headers.get("content-type", "").startswith("text/html"):
                    headers.setdefault("Content-Security-Policy", self._page_csp)
            await send(message)

        return send_with_headers

    def _check_host(self, headers: Headers) -> None:
        hosts = headers.getlist("host")
        found = _HOST.fullmatch(hosts[0].lower()) if len(hosts) == 1 else None
        if found is None or found["name"] not in self._hosts:
            raise HostRefused(
                f"this server does not answer to the name in the Host header; known: {', '.join(sorted(self._hosts))}; "
                "start it with --allowed-hosts to add one"
            )

    async def _read_body(self, request: Request) -> bytes:
        limit = _body_limit(request.scope["path"])
        declared = int(request.headers.get("content-length", "0"))
        if declared > MAX_DISCARDED_BYTES:
            raise _too_large(declared, limit)
        chunks: list[bytes] = []
        length = 0
        try:
            async with asyncio.timeout(self._body_timeout_s):
                async for chunk in request.stream():
                    length += len(chunk)
                    if length <= limit:
                        chunks.append(chunk)
                    elif length > MAX_DISCARDED_BYTES:
                        break
        except TimeoutError as exc:
            raise BodyTooSlow(
                f"{length} bytes of the body came in {self._body_timeout_s:g} s, and not the rest"
            ) from exc
        if length > limit:
            raise _too_large(max(length, declared), limit)
        return b"".join(chunks)


def _log_refused(scope: Scope, status: int, *, seconds: float) -> None:
    line = "request refused id=%s method=%s path=%s status=%d code=%s ms=%d"
    state = scope["state"]
    values = (state["request_id"], scope["method"], scope["path"][:MAX_LOGGED_CHARS], status, state.get("code", "-"))
    logger.info(line, *values, seconds * 1000)


def _is_report(scope: Scope) -> bool:
    """Whether the server says how it is; while it starts, whoever waits for it asks several times a second."""
    return scope["path"] in HEALTH_PATHS and "code" not in scope["state"]


def _log_left(scope: Scope) -> None:
    """The client has hung up before its end; whoever only watches may."""
    if scope["method"] not in SAFE_METHODS:
        logger.info("client left id=%s path=%s", scope["state"]["request_id"], scope["path"][:MAX_LOGGED_CHARS])


def error_response(error: QwenAioError, request_id: str) -> Response:
    """The JSON reply for `error`."""
    status = http_status(error)
    headers = error_headers(error)
    if status in (408, 413):
        headers["Connection"] = "close"  # the rest of the body must not be read as the next request
    content = ErrorResponse.from_core(error, request_id).to_json()
    return Response(content, status, headers, media_type=JSON_MEDIA)


def _host_name(name: str) -> str:
    lower = name.strip().lower()
    return f"[{lower}]" if ":" in lower and not lower.startswith("[") else lower


def _request_id(headers: Headers) -> str:
    given = headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def _check_origin(headers: Headers) -> None:
    """Refuse pages of other origins: a browser names the page's origin."""
    host = headers["host"].lower()
    usual = {f"http://{host.removesuffix(':80')}", f"https://{host.removesuffix(':443')}"}  # as a browser writes it
    ours = {f"http://{host}", f"https://{host}", *usual}
    if any(origin.lower() not in ours for origin in headers.getlist("origin")):
        raise OriginRefused(
            "Origin and Host name different servers, and pages of other sites may not call this one; a reverse proxy "
            "must pass the Host on (nginx: proxy_set_header Host $http_host;) or be in --trusted-proxies and send "
            "X-Forwarded-Host"
        )


def _check_framing(headers: Headers) -> None:
    # uvicorn bounds only headers that are still incomplete. 32 bytes each, as HTTP/2 counts them.
    if sum(len(name) + len(value) + 32 for name, value in headers.raw) > MAX_HEADER_BYTES:
        raise InvalidRequest(f"the headers are larger than {MAX_HEADER_BYTES} bytes")
    if "content-length" in headers and "transfer-encoding" in headers:
        raise InvalidRequest("Content-Length and Transfer-Encoding contradict each other; send one of them")
    if not re.fullmatch(r"[0-9]{1,18}", headers.get("content-length", "0")):
        raise InvalidRequest("Content-Length is not a number of bytes")
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMedia("compressed bodies are not read; send plain JSON without Content-Encoding")


def _check_media(headers: Headers, known: Collection[str]) -> None:
    media, *parameters = (part.strip().lower() for part in headers.get("content-type", "").split(";"))
    charsets = [
        value.strip('"') for name, _, value in (part.partition("=") for part in parameters) if name == "charset"
    ]
    if media not in known or any(charset not in ("utf-8", "utf8") for charset in charsets):
        raise UnsupportedMedia("send Content-Type: application/json, in UTF-8")


def _body_limit(path: str) -> int:
    # A balancer adds fields to a request, which may have had the largest size already.
    if path in (ENGINE_PATH, TOKENS_PATH):
        return MAX_ENGINE_REQUEST_BYTES
    return MAX_BODY_BYTES if rule_of(path) else MAX_STRANGER_BYTES


def _too_large(length: int, limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body has {length} bytes or more; the limit is {limit}")


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that returns the body once, then the messages after it."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return messages.pop() if messages else await receive()

    return receive_again
