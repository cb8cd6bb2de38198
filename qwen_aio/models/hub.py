"""HTTP with a model hub in the layout of Hugging Face: what a model holds, and its files, resumed where they broke off.

The one module that speaks to a network that is not the user's own, and only where a command was given that pulls.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from urllib.parse import quote
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from qwen_aio import __version__
from qwen_aio.errors import ConnectionLost, HubRefused, InvalidSettings, ServerUnreachable
from qwen_aio.models.listing import HubFile, Listing, read_listing
from qwen_aio.models.partial_file import PartialFile

CONNECT_TIMEOUT_S = 30.0
SILENCE_TIMEOUT_S = 60.0
MAX_LISTING_BYTES = 16_000_000
MAX_REDIRECTS = 5
MAX_FAILURES = 5  # attempts in a row that bring less than PROGRESS_BYTES
PROGRESS_BYTES = 2**20
FIRST_WAIT_S, MAX_WAIT_S = 0.5, 60.0
PIECE_BYTES = 2**18
REDIRECTS = (301, 302, 303, 307, 308)
PASSING = (408, 429, 500, 502, 503, 504)
SEEN = re.compile(r"[!-~]+")  # what an address may consist of


class Hub(AbstractAsyncContextManager["Hub"]):
    """A client of one hub; an async context manager. Proxies are those of the environment.

    Raises ServerUnreachable, ConnectionLost and HubRefused; InvalidModel for a repository without a model.
    """

    def __init__(
        self, endpoint: str, *, token: str = "", sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    ) -> None:
        """`token` is sent to this endpoint alone, not where it redirects to. Raises InvalidSettings."""
        self.endpoint = endpoint.rstrip("/")
        self._url = _endpoint_url(self.endpoint)
        self._token = _checked_token(token)
        self._sleep = sleep
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Hub:
        self._session = aiohttp.ClientSession(
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept-Encoding": "identity", "User-Agent": f"qwen_aio/{__version__}"},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=SILENCE_TIMEOUT_S),
        )
        return self

    async def __aexit__(self, *exception: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def listing(self, hub_name: str, revision: str) -> Listing:
        """What the hub has of the model at that branch, tag or commit."""
        url = f"{self.endpoint}/api/models/{hub_name}/revision/{quote(revision, safe='')}?blobs=true"
        body = bytearray()
        async with self._get(url) as response:
            self._check_status(response, hub_name, f"revision {revision}")
            async for piece in response.content.iter_any():
                body += piece
                if len(body) > MAX_LISTING_BYTES:
                    raise HubRefused(f"{self.endpoint} lists more files of {hub_name} than any model has")
        try:
            return read_listing(bytes(body), hub_name=hub_name, revision=revision)
        except ValueError as exc:
            raise HubRefused(f"{self.endpoint} answers about {hub_name}, but not as a model hub does") from exc

    async def fetch(
        self, listing: Listing, file: HubFile, into: PartialFile, *, advance: Callable[[int], object]
    ) -> None:
        """Bring `into` to its whole length; `advance` gets the number of new bytes, negative for lost ones."""
        failures = 0
        while not into.is_whole:
            length = into.length
            try:
                await self._append(listing, file, into, advance=advance)
                if not into.is_whole:
                    raise ConnectionLost(
                        f"the connection ended after {into.length} of {file.size} bytes of {file.name}"
                    )
            except ServerUnreachable as exc:
                failures = 0 if into.length - length >= PROGRESS_BYTES else failures + 1
                if failures == MAX_FAILURES:
                    raise
                await self._sleep(min(MAX_WAIT_S, max(exc.retry_after_s or 0, FIRST_WAIT_S * 2**failures)))

    async def _append(
        self, listing: Listing, file: HubFile, into: PartialFile, *, advance: Callable[[int], object]
    ) -> None:
        """One attempt, from where the file ends."""
        url = f"{self.endpoint}/{listing.hub_name}/resolve/{listing.commit}/{file.name}"
        async with self._get(url, range_from=into.length) as response:
            self._check_status(response, listing.hub_name, f"{file.name} at commit {listing.commit}")
            if into.length and response.status == 200:  # the whole file again
                advance(-into.length)
                into.restart()
            elif response.status == 206:
                _check_range(response, file, into.length)
            if response.content_length not in (None, file.size - into.length):
                raise HubRefused(
                    f"{file.name} would bring {response.content_length} bytes, where the hub lists {file.size}"
                )
            async for piece in response.content.iter_chunked(PIECE_BYTES):
                into.write(piece)
                advance(len(piece))

    @asynccontextmanager
    async def _get(self, address: str, *, range_from: int = 0) -> AsyncIterator[aiohttp.ClientResponse]:
        """The reply, behind redirects. Failures on the way, also while the body is read, become QwenAioErrors."""
        assert self._session is not None, "used outside of its context"
        url = URL(address, encoded=True)
        for _ in range(MAX_REDIRECTS + 1):
            headers = {"Range": f"bytes={range_from}-"} if range_from else {}
            if self._token and url.origin() == self._url.origin():
                headers["Authorization"] = f"Bearer {self._token}"
            proxy = _proxy_for(url)
            try:
                async with self._session.get(url, headers=headers, allow_redirects=False, proxy=proxy) as response:
                    if response.status not in REDIRECTS:
                        yield response
                        return
                    location = response.headers.get("Location", "")
            except (aiohttp.ClientError, TimeoutError) as exc:
                raise _failure(exc, url, proxy) from exc
            url = redirect_target(url, location, scheme=self._url.scheme)
        raise HubRefused(f"{self.endpoint} redirects more than {MAX_REDIRECTS} times")

    def _check_status(self, response: aiohttp.ClientResponse, hub_name: str, wanted: str) -> None:
        """Raises what a refusal means, by its status and the hub's own code."""
        status, code = response.status, response.headers.get("X-Error-Code", "")
        page, host = f"{self.endpoint}/{hub_name}", response.url.host
        if status in (200, 206):
            return
        if status in PASSING:
            wait = response.headers.get("Retry-After", "")
            raise ConnectionLost(
                f"{host} answers {status}; try again later",
                retry_after_s=int(wait) if re.fullmatch(r"\d{1,5}", wait, re.ASCII) else None,
            )
        if status == 407:
            raise ServerUnreachable(
                "the proxy asks for a name and a password: HTTPS_PROXY=http://NAME:PASSWORD@HOST:PORT"
            )
        if code == "GatedRepo" or status == 403:
            raise HubRefused(
                f"{host} does not give {wanted} of {hub_name} to everybody: accept the terms at {page}, and set"
                f" HF_TOKEN to a token of that account{self._token_hint}"
            )
        if code not in ("RevisionNotFound", "EntryNotFound") and status in (401, 404):
            raise HubRefused(
                f"{self.endpoint} has no model {hub_name}, or it is private: names are OWNER/NAME, as on its page, and"
                f" a private one needs HF_TOKEN{self._token_hint}"
            )
        if status == 404:
            raise HubRefused(f"{page} has no {wanted}")
        raise HubRefused(f"{host} answers {status} about {wanted} of {hub_name}")

    @property
    def _token_hint(self) -> str:
        return " (the one that is set does not suffice)" if self._token else ""


def redirect_target(url: URL, location: str, *, scheme: str) -> URL:
    """Where a redirect from `url` leads: to https, or to the `scheme` of the endpoint. Raises HubRefused."""
    try:
        if not SEEN.fullmatch(location):
            raise ValueError("no address")
        target = url.join(URL(location, encoded=True))
        if target.scheme not in ("https", scheme) or not target.host:
            raise ValueError("another scheme")
    except ValueError as exc:
        raise HubRefused(f"{url.host} redirects to {location[:100]!r}, which is not followed") from exc
    return target


def _endpoint_url(endpoint: str) -> URL:
    try:
        url = URL(endpoint)
        if url.scheme in ("http", "https") and url.host and not (url.user or url.password or url.query_string):
            return url
    except ValueError:
        pass
    raise InvalidSettings(
        "HF_ENDPOINT is no address of a hub: it is http(s)://HOST without name and password; a token goes into HF_TOKEN"
    )


def _checked_token(token: str) -> str:
    if token.strip() and not SEEN.fullmatch(token.strip()):
        raise InvalidSettings("HF_TOKEN has characters that no token has; copy it again")
    return token.strip()


def _proxy_for(url: URL) -> URL | None:
    """The proxy that the environment names for `url`, or the system's settings. Raises InvalidSettings.

    Not left to aiohttp's trust_env, which also sends what .netrc has for any host.
    """
    proxies = getproxies()
    stated = proxies.get(url.scheme) or proxies.get("all")
    if not stated or proxy_bypass(url.authority):
        return None
    try:
        proxy = URL(stated if "://" in stated else f"http://{stated}")
        if proxy.scheme in ("http", "https") and proxy.host:
            return proxy
    except ValueError:
        pass
    raise InvalidSettings(f"the proxy for {url.scheme} is no http(s)://HOST:PORT, as HTTPS_PROXY should be")


def _check_range(response: aiohttp.ClientResponse, file: HubFile, start: int) -> None:
    """Raises HubRefused if other bytes come than those asked for."""
    found = response.headers.get("Content-Range", "")
    if found != f"bytes {start}-{file.size - 1}/{file.size}":
        raise HubRefused(f"{response.url.host} sends {found[:100]!r} of {file.name}, asked for its bytes from {start}")


def _failure(exc: Exception, url: URL, proxy: URL | None) -> ServerUnreachable:
    """What a failed exchange means, in a sentence without secrets."""
    through = f" through the proxy {proxy.host}:{proxy.port}" if proxy else ""
    if isinstance(exc, aiohttp.ClientHttpProxyError):
        return ServerUnreachable(
            f"no way to {url.host}{through}, which answers {exc.status}; check HTTPS_PROXY and NO_PROXY"
        )
    if isinstance(exc, aiohttp.ClientConnectorCertificateError):
        return ServerUnreachable(
            f"nobody who is trusted vouches for the certificate of {url.host}{through}; where a company's proxy signs"
            " for others, SSL_CERT_FILE names its certificate"
        )
    if isinstance(exc, aiohttp.ClientConnectorError):
        number = exc.os_error.errno or 0
        # asyncio replaces the system's message by its own, which repeats the address.
        why = os.strerror(number) if number > 0 else exc.os_error.strerror or str(exc.os_error)
        return ServerUnreachable(
            f"{url.host} cannot be reached{through} ({why}); pulling needs a network: HF_ENDPOINT names"
            " another hub, HTTPS_PROXY a proxy"
        )
    why = "nothing came for too long" if isinstance(exc, TimeoutError) else "it broke off"
    return ConnectionLost(f"no whole answer from {url.host}{through}: {why}")
