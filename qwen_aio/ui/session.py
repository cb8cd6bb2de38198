"""One visitor: what they see, in which language, and the request that runs for them, if any.

Lives on the event loop; Gradio keeps one per browser tab. While a request runs, only its handler
changes the view.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from qwen_aio.core import Task
from qwen_aio.language import Language
from qwen_aio.next_event import interrupt, next_event
from qwen_aio.ui.view import View

T = TypeVar("T")


class Place:
    """Room for one piece of work at a time, which can be stopped."""

    def __init__(self) -> None:
        self._stop: StopSwitch | None = None  # there while something runs

    @property
    def is_taken(self) -> bool:
        return self._stop is not None

    @contextmanager
    def taken(self) -> Iterator[StopSwitch]:
        """Holds it."""
        assert self._stop is None
        self._stop = StopSwitch()
        try:
            yield self._stop
        finally:
            self._stop = None

    def stop(self) -> None:
        """Ends what runs; nothing happens if nothing does."""
        if self._stop is not None:
            self._stop.throw()


class Session:
    """The state of one tab."""

    def __init__(self) -> None:
        self.is_known = False  # whether the tab has reported what it shows
        self.language: Language = "en"
        self.tasks: Mapping[str, Task] = {}  # as of when the page was opened
        self.view = View()
        self._message = Place()
        self.file = Place()  # rows of a file are put to a task beside the conversation
        self.columns: tuple[str, ...] = ()  # of the chosen file
        self.is_leaving = False  # the running request was stopped in order to begin anew

    def __repr__(self) -> str:
        return f"<Session {self.language}, {len(self.view.exchanges)} exchanges, running={self.is_running}>"

    @property
    def is_running(self) -> bool:
        """Whether a request of this tab is under way."""
        return self._message.is_taken

    @contextmanager
    def running(self) -> Iterator[StopSwitch]:
        """Holds the tab's only place for a request."""
        with self._message.taken() as stop:
            try:
                yield stop
            finally:
                self.is_leaving = False

    def stop(self) -> None:
        """Ends the running request; nothing happens if none runs."""
        self._message.stop()

    def leave(self) -> None:
        """Ends the running request and with it the conversation."""
        self.is_leaving = True
        self.stop()


class _Stopped(Exception):
    """The switch was thrown."""


class StopSwitch:
    """Interrupts one consumer of events wherever it waits. Event loop only; no task of its own."""

    def __init__(self) -> None:
        self.is_thrown = False
        self._waiting: asyncio.Timeout | None = None  # around the consumer's current wait

    def throw(self) -> None:
        """Ends the consumer's wait now, or its next one before it begins."""
        self.is_thrown = True
        if self._waiting is not None:
            interrupt(self._waiting)

    async def next(self, events: AsyncGenerator[T, None]) -> T | None:
        """The next event; None at their end or when the switch is thrown."""
        if self.is_thrown:
            return None
        self._waiting = asyncio.timeout(None)
        try:
            return await next_event(events, self._waiting, _Stopped)
        except _Stopped:
            return None
        finally:
            self._waiting = None
