"""One HTTP client per worker address, for the life of the balancer."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Collection

from qwen_aio.client.async_client import AsyncClient
from qwen_aio.egress.peers import Peers


class WorkerClients:
    """Makes a client at its first use; `keep` closes those of workers that have left.

    The egress guard lets these addresses through as long, and no others.
    """

    def __init__(
        self,
        peers: Peers,
        *,
        key: str | Callable[[], str] = "",
        tls_to: Callable[[str], ssl.SSLContext | None] = lambda _: None,
    ) -> None:
        """`key` is that of the balancer, `tls_to` says how the server at an address is checked, as in AsyncClient."""
        self._peers = peers
        self._key = key
        self._tls_to = tls_to
        self._clients: dict[str, AsyncClient] = {}

    def to(self, url: str) -> AsyncClient:
        if url not in self._clients:
            self._peers.add(url)
            self._clients[url] = AsyncClient(url, key=self._key, tls=self._tls_to(url))
        return self._clients[url]

    async def keep(self, urls: Collection[str]) -> None:
        """Close all clients but those of `urls`."""
        for url in [url for url in self._clients if url not in urls]:
            self._peers.remove(url)
            await self._clients.pop(url).close()
