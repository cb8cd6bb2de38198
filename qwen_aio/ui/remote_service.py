"""The server that the page stands in front of: asked for the visitors, and looked at now and then when nobody asks.

Remembers how it answered last, and when: that is all the page knows of it. Knows neither Gradio nor HTTP. Owned by the
event loop.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import suppress
from typing import Protocol

from qwen_aio.core import Capabilities, Event, Request, Task
from qwen_aio.errors import NotReady, QwenAioError
from qwen_aio.ui.about import About

DEMONSTRATION = "qwen-aio-bundled"  # what models/find.py calls the model that ships with the package

logger = logging.getLogger(__name__)


class Server(Protocol):
    """A worker or a balancer: client.Client."""

    async def offer(self) -> Capabilities:
        """What it can do, and who does it. Raises QwenAioError."""

    def stream(self, request: Request) -> AsyncGenerator[Event, None]:
        """Decided?, TextDelta*, Done. Closing it cancels what runs. Raises QwenAioError."""


class RemoteService:
    """A `Service` that lives elsewhere, at `url`."""

    def __init__(self, server: Server, *, url: str, version: str, clock: Callable[[], float] = time.monotonic) -> None:
        """`version` is the page's own."""
        self._server = server
        self.url = url
        self._version = version
        self._clock = clock
        self._heard_at: float | None = None
        self._last: Capabilities | QwenAioError = NotReady(f"{url} has not been asked yet", retry_after_s=2)

    def __repr__(self) -> str:
        return f"<Behind {self.url}, {'answers' if self.failure is None else self.failure.code}>"

    @property
    def failure(self) -> QwenAioError | None:
        """Why it did not do what it was last asked for; None if it did."""
        return self._last if isinstance(self._last, QwenAioError) else None

    def stream(self, request: Request) -> AsyncGenerator[Event, None]:
        """See Server."""
        return self._server.stream(request)

    async def tasks(self) -> Mapping[str, Task]:
        """Every task by name. Raises QwenAioError."""
        try:
            offer = await self._server.offer()
        except QwenAioError as exc:
            self._remember(exc)
            raise
        self._remember(offer)
        return offer.tasks

    async def look(self) -> None:
        """Ask only in order to know whether it answers."""
        with suppress(QwenAioError):
            await self.tasks()

    def about(self) -> About:
        """Who answers, as far as the last look told."""
        if isinstance(self._last, QwenAioError):
            return About(None, False, self._version, None, url=self.url)
        model, worker = self._last.model, self._last.worker
        return About(model, model == DEMONSTRATION, self._version, worker, url=self.url)

    def record(self) -> dict[str, object]:
        """For /health: whether it answered, and how many seconds ago that was seen."""
        about = self.about()
        return {
            "server": self.url,
            "answers": None if self._heard_at is None else self.failure is None,
            "age_s": None if self._heard_at is None else round(self._clock() - self._heard_at, 1),
            "model": about.model,
            "worker": about.worker,
        }

    def _remember(self, heard: Capabilities | QwenAioError) -> None:
        before, self._last, self._heard_at = self.failure, heard, self._clock()
        if isinstance(heard, Capabilities):
            if before is not None:
                logger.info("server answers url=%s model=%s worker=%s", self.url, heard.model, heard.worker)
        elif before is None:
            logger.warning("server lost url=%s code=%s: %s", self.url, heard.code, heard.message)
