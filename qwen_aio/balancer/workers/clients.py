"""One HTTP client per worker address, for the life of the balancer."""

from __future__ import annotations

from collections.abc import Collection

from qwen_aio.client import Client


class WorkerClients:
    """Makes a client at its first use; `keep` closes those of workers that have left."""

    def __init__(self) -> None:
        self._clients: dict[str, Client] = {}

    def to(self, url: str) -> Client:
        if url not in self._clients:
            self._clients[url] = Client(url)
        return self._clients[url]

    async def keep(self, urls: Collection[str]) -> None:
        """Close all clients but those of `urls`."""
        for url in [url for url in self._clients if url not in urls]:
            await self._clients.pop(url).close()
