"""What a visitor's acts do: requests to the service, views for the page. Knows no Gradio."""

from __future__ import annotations

import asyncio
import math
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import cast

from qwen_aio.core import Request, Service, Task
from qwen_aio.errors import QwenAioError
from qwen_aio.language import language_for
from qwen_aio.result import Decided, TextDelta
from qwen_aio.ui.session import Session, StopSwitch
from qwen_aio.ui.tab import TabState
from qwen_aio.ui.view import NOTICE_KEYS, Notice, NoticeKey, View
from qwen_aio.visible import has_visible

MAX_TEXT_CHARS = 8000
FLUSH_S = 0.1  # streamed text reaches the page at most this often

MonotonicClock = Callable[[], float]


@dataclass(frozen=True)
class Ask:
    """A message: its text, the chosen mode, and whether both decision and answer are wanted."""

    text: str
    mode: str = "auto"
    is_enhanced: bool = True

    def expects_answer(self, tasks: Mapping[str, Task]) -> bool:
        """Whether there will be an answer, whatever is decided: the text is then shown at once."""
        task = tasks.get(self.mode)
        return self.is_enhanced or (task is not None and task.kind == "generation")


class Handlers:
    """The verbs of the page. Stateless: what lasts is in the visitor's Session."""

    def __init__(
        self, service: Service, *, url: str | None = None, clock: MonotonicClock = time.monotonic, retry_s: float = 1.0
    ) -> None:
        """`url` is that of the service, if it is another process; notices name it."""
        self._service = service
        self._url = url
        self._clock = clock
        self._retry_s = retry_s  # between two attempts to reach the service

    async def open(self, session: Session, tab: TabState, accept_language: str) -> AsyncGenerator[View, None]:
        """The first view, in the language of tab or browser; more until the service answers."""
        if not session.is_known:
            _adopt(session, tab, accept_language)
        remembered = session.view.notices
        while True:
            failure = await self._learn_tasks(session)
            if not session.is_running:
                session.view = replace(
                    session.view, notices=(notice_of(failure, url=self._url),) if failure else remembered
                )
            yield session.view
            if failure is None:
                return
            session.view = replace(session.view, draft=None)  # set once, then the visitor's
            # Any failure may pass; yielding a view shows whether the tab is still open.
            await asyncio.sleep(self._retry_s)

    async def recognise(self, session: Session, tab: TabState, accept_language: str) -> None:
        """Take over what the tab shows, if it was opened by an earlier process."""
        if not session.is_known:
            _adopt(session, tab, accept_language)
            await self._learn_tasks(session)  # a failure is shown by the request that follows

    async def submit(self, session: Session, ask: Ask) -> AsyncGenerator[View, None]:
        """The views of one request, from the moment it is sent until nothing more comes.

        Closing this generator closes the service's stream, which frees the sequence in the engine.
        """
        ask = replace(ask, text=_well_formed(ask.text).strip())
        refusal = _refusal(session, ask)
        if refusal is not None:
            session.view = replace(session.view, notices=(refusal,), draft=None)
            yield session.view
        elif ask.text:
            with session.running() as stop:
                async with aclosing(self._views(session, ask, stop)) as views:
                    async for view in views:
                        session.view = View() if session.is_leaving else view
                        yield session.view

    def stop(self, session: Session) -> View | None:
        """End the running request, whose own handler shows the outcome; a view if none runs."""
        if session.is_running:
            session.stop()
            return None
        session.view = session.view.ended()
        return session.view

    def begin_anew(self, session: Session) -> View | None:
        """The empty page; None if a request runs, whose own handler stops and shows it."""
        if session.is_running:
            session.leave()
            return None
        session.view = View()
        return session.view

    def broke(self, session: Session) -> View:
        """The view after a bug; its traceback is in the log. The text box keeps its text."""
        notice = Notice("internal", is_error=True)
        view = session.view
        session.view = view.taken_back(notice) if view.is_running else replace(view, notices=(notice,), draft=None)
        return session.view

    async def _learn_tasks(self, session: Session) -> QwenAioError | None:
        try:
            session.tasks = (await self._service.capabilities()).tasks
        except QwenAioError as exc:
            return exc
        return None

    async def _views(self, session: Session, ask: Ask, stop: StopSwitch) -> AsyncGenerator[View, None]:
        request = Request(
            ask.text,
            mode=ask.mode,
            reply=ask.is_enhanced,
            explain=True,
            history=session.view.history(),
            request_id=f"page-{uuid.uuid4().hex[:12]}",
        )
        view = session.view.asking(ask.text, expects_answer=ask.expects_answer(session.tasks))
        yield view
        flushed_at = -math.inf
        try:
            async with aclosing(self._service.stream(request)) as events:
                while (event := await stop.next(events)) is not None:
                    view = view.after(event)
                    now = self._clock()
                    if isinstance(event, Decided):
                        yield view
                    elif isinstance(event, TextDelta) and now - flushed_at >= FLUSH_S:
                        flushed_at = now
                        yield view
        except QwenAioError as exc:
            view = view.taken_back(notice_of(exc, url=self._url))
        yield view.ended(Notice("stopped")) if view.is_running else view


def notice_of(error: QwenAioError, *, url: str | None) -> Notice:
    """`error` as a sentence; `url` is that of the service, if it is another process."""
    key = cast(NoticeKey, error.code) if error.code in NOTICE_KEYS else "internal"
    return Notice(key, {"message": error.message, "url": url or ""}, is_error=True)


def _adopt(session: Session, tab: TabState, accept_language: str) -> None:
    session.is_known = True
    session.language = tab.language or language_for(accept_language)
    session.view = tab.view()


def _well_formed(text: str) -> str:
    """`text` with U+FFFD for halves of surrogate pairs: browsers send them, nothing encodes one."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _refusal(session: Session, ask: Ask) -> Notice | None:
    if session.is_running:
        return Notice("busy")
    if len(ask.text) > MAX_TEXT_CHARS:
        return Notice("too_long", {"length": len(ask.text), "limit": MAX_TEXT_CHARS}, is_error=True)
    if ask.text and not has_visible(ask.text):
        return Notice("nothing_visible", is_error=True)
    return None
