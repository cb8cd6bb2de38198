"""The server that the page stands in front of: asked for the visitors, and looked at now and then when nobody asks.

Remembers how it answered last, and when: that is all the page knows of it. Knows neither Gradio nor HTTP. Owned by the
event loop.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress

from qwen_aio.core import Capabilities, Event, Request, Service
from qwen_aio.errors import NotReady, QwenAioError
from qwen_aio.ui.about import About

DEMONSTRATION = "qwen-aio-bundled"  # what models/find.py calls the model that ships with the package

logger = logging.getLogger(__name__)


class RemoteService:
    """A `Service` that lives elsewhere, at `url`."""

    def __init__(self, server: Service, *, url: str, version: str, clock: Callable[[], float] = time.monotonic) -> None:
        """`server` is a client of it; `version` is the page's own."""
        self._server = server
        self.url = url
        self._version = version
        self._clock = clock
        self._heard_at: float | None = None
        self._last: Capabilities | QwenAioError = NotReady(f"{url} has not been asked yet", retry_after_s=2)

    def __repr__(self) -> str:
        return f"<RemoteService {self.url}, {'answers' if self.failure is None else self.failure.code}>"

    @property
    def failure(self) -> QwenAioError | None:
        """Why it did not do what it was last asked for; None if it did."""
        return self._last if isinstance(self._last, QwenAioError) else None

    def stream(self, request: Request) -> AsyncGenerator[Event, None]:
        """See Service."""
        return self._server.stream(request)

    async def capabilities(self) -> Capabilities:
        """What the server can do. Raises QwenAioError."""
        try:
            capabilities = await self._server.capabilities()
        except QwenAioError as exc:
            self._remember(exc)
            raise
        self._remember(capabilities)
        return capabilities

    async def look(self) -> None:
        """Ask only in order to know whether it answers."""
        with suppress(QwenAioError):
            await self.capabilities()

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
