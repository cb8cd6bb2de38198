"""Admission to a server: which requests may start now, and how many are in flight.

All requests pass here, those of HTTP handlers and in single mode those of the page, so that
draining and counting hold for all. Knows no HTTP. Owned by the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import Any, TypeVar

from qwen_aio.core import Capabilities, Request, Service
from qwen_aio.errors import Draining, EngineStopped, NotReady, QwenAioError
from qwen_aio.next_event import interrupt, next_event
from qwen_aio.result import Done, Event, Result, SampledToken, TextDelta
from qwen_aio.serving.deadline import Deadline
from qwen_aio.serving.interruption import all_results
from qwen_aio.status.record import WorkerState

PARALLEL_TEXTS = 8  # of one list of texts or tasks: other clients are waiting too
T = TypeVar("T")


class AdmissionGate:
    """Closed until `open`, and from `drain` or `fail` on; only `cut_off` ends admitted requests."""

    def __init__(
        self,
        *,
        starting: str = "the model is still loading; try again in a few seconds",
        on_state: Callable[[WorkerState], None] = lambda _: None,
    ) -> None:
        """`starting` is the message for requests that come before the gate is open; a new state calls `on_state`."""
        self._service: Service | None = None
        self._starting = starting
        self._on_state = on_state
        self._state: WorkerState = "starting"
        self._failure = ""
        self._in_flight = 0
        self._empty = asyncio.Event()
        self._empty.set()
        self._is_cut_off = False
        self._waits: set[asyncio.Timeout] = set()  # one per request that waits for its next event

    def __repr__(self) -> str:
        return f"<AdmissionGate {self._state}, {self._in_flight} in flight>"

    @property
    def state(self) -> WorkerState:
        """What the server is doing."""
        return self._state

    @property
    def in_flight(self) -> int:
        """Requests that were admitted and have not ended."""
        return self._in_flight

    @property
    def refusal(self) -> QwenAioError | None:
        """Why no request is admitted now; None if the gate is open."""
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
        """What serves admitted requests. Raises NotReady until there is one."""
        if self._service is None:
            raise self.refusal or NotReady(self._starting)
        return self._service

    # ---- for the process that owns the gate ----

    def open(self, service: Service) -> None:
        """Admit requests, unless the server is shutting down already."""
        self._service = service
        if self._state == "starting":
            self._enter("ready")

    def drain(self) -> None:
        """Admit no more requests."""
        if self._state != "failed":
            self._enter("draining")

    def fail(self, reason: str) -> None:
        """Admit no more requests: the engine is gone. `reason` is a sentence for clients."""
        self._failure = reason
        self._enter("failed")

    def cut_off(self) -> None:
        """End every request in flight with the refusal as its error."""
        assert self.refusal is not None
        self._is_cut_off = True
        for wait in self._waits:
            interrupt(wait)

    async def wait_empty(self) -> None:
        """Until no request is in flight."""
        await self._empty.wait()

    def _enter(self, state: WorkerState) -> None:
        if state != self._state:
            self._state = state
            self._on_state(state)

    # ---- for clients ----

    async def capabilities(self) -> Capabilities:
        """What can be asked for. Raises NotReady, NoWorker."""
        return await self.service.capabilities()

    async def run(self, request: Request) -> Result:
        """The result of `request`. Raises what `stream` raises."""
        with self._admitted():
            return await self._result(request)

    async def run_all(self, requests: Sequence[Request], *, timeout_s: float) -> list[Result]:
        """The results of one client's texts, in order, or the first error, which ends the rest.

        The list is admitted as a whole: a drain lets all of it finish. Raises what `stream` raises.
        """
        with self._admitted():
            return await all_results(self._few_at_once(requests, Deadline(timeout_s, advice="send fewer texts")))

    async def run_each(self, requests: Sequence[Request], *, timeout_s: float) -> list[Result | QwenAioError]:
        """As `run_all`, but a request that fails is its error, and the others go on."""

        async def outcome(work: Awaitable[Result]) -> Result | QwenAioError:
            try:
                return await work
            except QwenAioError as exc:
                return exc

        with self._admitted():
            works = self._few_at_once(requests, Deadline(timeout_s, advice="name fewer tasks"))
            return await all_results(outcome(work) for work in works)

    def _few_at_once(self, requests: Sequence[Request], deadline: Deadline) -> list[Coroutine[Any, Any, Result]]:
        free = asyncio.Semaphore(PARALLEL_TEXTS)

        async def run(request: Request) -> Result:
            async with free:
                return await self._result(request, deadline)

        return [run(request) for request in requests]

    def stream(self, request: Request) -> AsyncGenerator[Event, None]:
        """What the service yields and raises; besides NotReady, Draining and EngineStopped."""
        return self.through(lambda: self.service.stream(request))

    async def through(
        self, begin: Callable[[], AsyncGenerator[T, None]], deadline: Deadline | None = None
    ) -> AsyncGenerator[T, None]:
        """The events of `begin()`, counted as one request in flight. Raises DeadlineExceeded."""
        with self._admitted():
            async with aclosing(begin()) as events:
                while (event := await self._next(events, deadline)) is not None:
                    yield event

    @contextmanager
    def _admitted(self) -> Iterator[None]:
        """One request in flight. Raises the refusal."""
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

    async def _result(self, request: Request, deadline: Deadline | None = None) -> Result:
        """The end of an admitted request's stream, with the log probabilities that came before it."""
        tokens: list[SampledToken] = []
        async with aclosing(self.service.stream(request)) as events:
            while (event := await self._next(events, deadline)) is not None:
                if isinstance(event, TextDelta):
                    tokens += event.logprobs
                if isinstance(event, Done):
                    return event.result.with_logprobs(tokens)
        raise AssertionError("a stream ends with Done or an error")

    async def _next(self, events: AsyncGenerator[T, None], deadline: Deadline | None) -> T | None:
        """The next event, None at the end. Raises DeadlineExceeded, the refusal after `cut_off`."""

        def interrupted() -> QwenAioError:
            error = deadline.exceeded() if deadline and not self._is_cut_off else self.refusal
            assert error is not None
            return error

        when = deadline.at if deadline else None
        limit = asyncio.timeout_at(0 if self._is_cut_off else when)
        self._waits.add(limit)
        try:
            return await next_event(events, limit, interrupted)
        finally:
            self._waits.discard(limit)
