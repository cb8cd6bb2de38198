"""The way into a server: who may come in now, and who is inside.

Everybody passes here, HTTP handlers and in single mode the page, so that draining and counting hold for all. Knows no
HTTP. Owned by the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from typing import TypeVar

from qwen_aio.core import Event, Request, Result, Service, Task, WorkerState
from qwen_aio.errors import DeadlineExceeded, Draining, EngineStopped, NotReady, QwenAioError
from qwen_aio.serving.pipeline import result_of

PARALLEL_TEXTS = 8  # of one list of texts: others want to be served too
T = TypeVar("T")


class AdmissionGate:
    """Closed until `open`; closed again by `drain` or `fail`, which let those inside finish; `cut_off` does not."""

    def __init__(self, *, starting: str = "the model is still loading; try again in a few seconds") -> None:
        """`starting` is the sentence for those who come before it is open."""
        self._service: Service | None = None
        self._starting = starting
        self._state: WorkerState = "starting"
        self._failure = ""
        self._in_flight = 0
        self._empty = asyncio.Event()
        self._empty.set()
        self._is_cut_off = False
        self._waits: set[asyncio.Timeout] = set()  # one per request that waits for its next event

    def __repr__(self) -> str:
        return f"<Door {self._state}, {self._in_flight} in flight>"

    @property
    def state(self) -> WorkerState:
        """What the server is doing."""
        return self._state

    @property
    def in_flight(self) -> int:
        """Requests inside."""
        return self._in_flight

    @property
    def refusal(self) -> QwenAioError | None:
        """Why nobody may come in now; None if everybody may."""
        match self._state:
            case "starting":
                return NotReady(self._starting, retry_after_s=2)
            case "draining":
                return Draining("this server is shutting down and takes no more requests", retry_after_s=2)
            case "failed":
                return EngineStopped(self._failure, retry_after_s=5)
            case "ready":
                return None

    @property
    def service(self) -> Service:
        """Raises NotReady until there is one."""
        if self._service is None:
            raise self.refusal or NotReady(self._starting)
        return self._service

    # ---- whoever runs the process ----

    def open(self, service: Service) -> None:
        """Let everybody in, unless the server is shutting down already."""
        self._service = service
        if self._state == "starting":
            self._state = "ready"

    def drain(self) -> None:
        """Let nobody in any more."""
        if self._state != "failed":
            self._state = "draining"

    def fail(self, reason: str) -> None:
        """Let nobody in any more: the engine is gone. `reason` is a sentence for those who ask."""
        self._state, self._failure = "failed", reason

    def cut_off(self) -> None:
        """End everything inside with the refusal as its error."""
        assert self.refusal is not None
        self._is_cut_off = True
        for wait in self._waits:
            wait.reschedule(asyncio.get_running_loop().time())

    async def wait_empty(self) -> None:
        """Until nobody is inside."""
        await self._empty.wait()

    # ---- whoever wants an answer ----

    async def tasks(self) -> Mapping[str, Task]:
        """Every task by name. Raises NotReady."""
        return await self.service.tasks()

    async def run(self, request: Request) -> Result:
        """The finished outcome of `request`. Raises what `stream` raises."""
        return await result_of(self.stream(request))

    async def run_all(self, requests: Sequence[Request], *, timeout_s: float) -> list[Result]:
        """The outcomes of many texts of one caller, in order. All or nothing: the first error ends the rest.

        Whoever is inside finishes, so the door is passed once, for all of them. Raises what `stream` raises.
        """
        free = asyncio.Semaphore(PARALLEL_TEXTS)

        async def run(request: Request) -> Result:
            async with free:
                return await result_of(self._watched(self.service.stream(request)))

        with self._inside():
            tasks = [asyncio.ensure_future(run(request)) for request in requests]
            try:
                async with asyncio.timeout(timeout_s):
                    return await asyncio.gather(*tasks)
            except TimeoutError as exc:
                raise DeadlineExceeded(f"not finished within {timeout_s:g} s; send fewer texts") from exc
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    def stream(self, request: Request) -> AsyncGenerator[Event, None]:
        """What the service gives and raises; besides NotReady, Draining and EngineStopped."""
        return self.through(lambda: self.service.stream(request))

    async def through(self, begin: Callable[[], AsyncGenerator[T, None]]) -> AsyncGenerator[T, None]:
        """What `begin()` gives, for one who is counted as inside and cut off like everybody else."""
        with self._inside():
            async with aclosing(self._watched(begin())) as events:
                async for event in events:
                    yield event

    @contextmanager
    def _inside(self) -> Iterator[None]:
        """One caller's place."""
        if self.refusal is not None:
            raise self.refusal
        self._in_flight += 1
        self._empty.clear()
        try:
            yield
        finally:
            self._in_flight -= 1
            if self._in_flight == 0:
                self._empty.set()

    async def _watched(self, events: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        async with aclosing(events):
            while (event := await self._next(events)) is not None:
                yield event

    async def _next(self, events: AsyncGenerator[T, None]) -> T | None:
        """The next event; None at the end."""
        # A limit that never strikes, unless cut_off moves it.
        limit = asyncio.timeout(0 if self._is_cut_off else None)
        self._waits.add(limit)
        try:
            async with limit:
                return await anext(events, None)
        except TimeoutError as exc:
            assert self.refusal is not None
            raise self.refusal from exc
        finally:
            self._waits.discard(limit)
