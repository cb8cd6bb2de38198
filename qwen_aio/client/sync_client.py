"""The blocking twin of AsyncClient, which does the work on an event loop in a thread of its own.

For scripts, threads and notebooks, whose own loop is busy while a cell runs.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from concurrent.futures import CancelledError
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from qwen_aio.client.async_client import AsyncClient
from qwen_aio.core import Capabilities, Request
from qwen_aio.errors import ConnectionLost
from qwen_aio.result import Event, Result

T = TypeVar("T")


class Client(AbstractContextManager["Client"]):
    """A client of one address. A context manager; may be used by several threads at once."""

    def __init__(self, base_url: str, *, key: str | Callable[[], str] = "", tls: ssl.SSLContext | None = None) -> None:
        """As AsyncClient."""
        self._client = AsyncClient(base_url, key=key, tls=tls)
        self._lock = threading.RLock()  # of what follows; reentrant, since the collector of garbage closes streams
        self._loop: asyncio.AbstractEventLoop | None = None  # runs from the first request to `close`
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        return repr(self._client)

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End what runs, give the connections back and end the thread; a later request starts another."""
        with self._lock:
            loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
            if loop is None or thread is None:
                return
            # Held to the end: the connections must be gone before another loop makes its own.
            asyncio.run_coroutine_threadsafe(self._shut_down(), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            thread.join()

    def run(self, request: Request) -> Result:
        """The result. Raises what the server raises, ServerUnreachable."""
        return self._wait(self._client.run(request))

    def stream(self, request: Request) -> Generator[Event, None, None]:
        """Decided?, TextDelta*, Done. Closing it (`close`, or a loop that is left) ends the work. Raises as `run`."""
        events, loop = self._client.stream(request), self._running_loop()
        try:
            while (event := self._wait(_next(events))) is not None:
                yield event
        finally:
            self._end(events, loop)

    def capabilities(self) -> Capabilities:
        """What can be asked for, without the templates of tasks. Raises what `run` raises."""
        return self._wait(self._client.capabilities())

    def health(self) -> dict[str, Any]:
        """The record of GET /health, also before the server is ready. Raises ServerUnreachable, KeyRefused."""
        return self._wait(self._client.health())

    def _end(self, events: AsyncGenerator[Event, None], loop: asyncio.AbstractEventLoop) -> None:
        """Close a stream of `loop`."""
        if loop is not self._loop:  # closed meanwhile, and all its streams with it
            return
        if threading.current_thread() is self._thread:  # the collector of garbage may run in any thread
            loop.create_task(_closed(events))
        else:
            self._wait(_closed(events))

    async def _shut_down(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.get_running_loop().shutdown_asyncgens()
        await self._client.close()

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        """The outcome of `work`; it is cancelled if waiting is interrupted, as by Ctrl-C. Raises ConnectionLost."""
        with self._lock:  # so that `close` comes before, and this starts another loop, or after, and cancels it
            done = asyncio.run_coroutine_threadsafe(work, self._running_loop())
        try:
            return done.result()
        except CancelledError as exc:
            raise ConnectionLost("this client was closed while it waited for a reply") from exc
        except BaseException:
            done.cancel()
            raise

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=_run, args=(self._loop,), name="qwen_aio client", daemon=True)
                self._thread.start()
            return self._loop


def _run(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()


async def _closed(events: AsyncGenerator[Event, None]) -> None:
    await events.aclose()


async def _next(events: AsyncGenerator[Event, None]) -> Event | None:
    return await anext(events, None)
