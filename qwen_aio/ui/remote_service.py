"""The server that the page asks: for its visitors, and now and then to see whether it answers.

Remembers its last answer and when it came. Knows neither Gradio nor HTTP. Owned by the event loop.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress

from qwen_aio.core import Capabilities, Request, Service
from qwen_aio.errors import NotReady, QwenAioError
from qwen_aio.result import Event
from qwen_aio.ui.about import About

DEMONSTRATION = "qwen-aio-bundled"  # the bundled model, as in models/find.py

logger = logging.getLogger(__name__)


class RemoteService:
    """A `Service` that runs elsewhere, at `url`."""

    def __init__(self, server: Service, *, url: str, version: str, clock: Callable[[], float] = time.monotonic) -> None:
        """`server` is a client of it; `version` is the page's own."""
        self._server = server
        self.url = url
        self._version = version
        self._clock = clock
        self._answered_at: float | None = None
        self._last: Capabilities | QwenAioError = NotReady(f"{url} has not been asked yet", retry_after_s=2)

    def __repr__(self) -> str:
        return f"<RemoteService {self.url}, {'answers' if self.failure is None else self.failure.code}>"

    @property
    def failure(self) -> QwenAioError | None:
        """Why the last attempt to reach it failed; None if it answered."""
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
        """Find out whether it answers."""
        with suppress(QwenAioError):
            await self.capabilities()

    def about(self) -> About:
        """Model and worker, as of the last answer."""
        if isinstance(self._last, QwenAioError):
            return About(None, False, self._version, None, url=self.url)
        model, worker = self._last.model, self._last.worker
        return About(model, model == DEMONSTRATION, self._version, worker, url=self.url)

    def record(self) -> dict[str, object]:
        """For /health: whether it answered, and how many seconds ago."""
        about = self.about()
        return {
            "server": self.url,
            "answers": None if self._answered_at is None else self.failure is None,
            "age_s": None if self._answered_at is None else round(self._clock() - self._answered_at, 1),
            "model": about.model,
            "worker": about.worker,
        }

    def _remember(self, answer: Capabilities | QwenAioError) -> None:
        before, self._last, self._answered_at = self.failure, answer, self._clock()
        if isinstance(answer, Capabilities):
            if before is not None:
                logger.info("server answers url=%s model=%s worker=%s", self.url, answer.model, answer.worker)
        elif before is None:
            logger.warning("server lost url=%s code=%s: %s", self.url, answer.code, answer.message)
