"""The page: which act of a visitor calls which handler, and how a view reaches the components.

Every output of a running request has one writer, its own handler, so that late events cannot
overwrite newer ones. What an act does is in handlers.py, how things look in html/.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from qwen_aio.ui.layout import (  # first: it sets what gradio reads at its import
    Layout,
    decision_tasks,
    modes,
    truth_columns,
)

import gradio as gr  # isort: skip

from qwen_aio.core import Service
from qwen_aio.language import Language
from qwen_aio.ui.about import About
from qwen_aio.ui.handlers import Ask, Handlers
from qwen_aio.ui.html.conversation import conversation_html
from qwen_aio.ui.html.decision import decision_html
from qwen_aio.ui.html.file import hint_html, outcome_html, progress_html
from qwen_aio.ui.html.frame import about_html, header_html, notices_html, title_html
from qwen_aio.ui.labelling import FileHandlers, FileView, LabellingJob
from qwen_aio.ui.session import Session
from qwen_aio.ui.strings import ENGLISH, STRINGS
from qwen_aio.ui.tab import TabState
from qwen_aio.ui.view import Notice, View

TITLE = "Qwen All-in-One"
MAX_RUNNING = 16  # requests of all visitors that run at once; the service has a queue of its own
MAX_WAITING = 64  # acts of all visitors that wait
MAX_SESSIONS = 500  # tabs whose conversation is remembered

# Runs in the browser, see tab.js. The last input of a handler is the state that the tab reports.
SET_LANGUAGE = "(language) => qwenTab.opened(language)"
WITH_STORED = "(...inputs) => [...inputs.slice(0, -1), qwenTab.stored()]"
WITH_FILE = "async (...inputs) => [...inputs.slice(0, -1), await qwenTab.file()]"
WITH_SHOWN = "(...inputs) => [...inputs.slice(0, -1), qwenTab.state()]"

Outputs = dict[Any, Any]  # Gradio component -> its new value


def build_page(service: Service, *, about: Callable[[], About]) -> gr.Blocks:
    """The page, not yet served: see mount.py. Every opening or new language calls `about`."""
    page = gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True)
    with page:
        now = about()
        _Wiring(
            page, Layout(ENGLISH, now), Handlers(service, url=now.url), FileHandlers(service, url=now.url), about
        ).connect()
    page.state_session_capacity = MAX_SESSIONS
    page.queue(api_open=False, max_size=MAX_WAITING, default_concurrency_limit=MAX_RUNNING)
    # Gradio looks for work a thousand times a second, which costs an idle machine 6 % of a core.
    page._queue.sleep_when_free = 0.01
    return page


class _Wiring:
    """Connects acts to handlers, and views to components."""

    def __init__(
        self,
        page: gr.Blocks,
        layout: Layout,
        handlers: Handlers,
        file_handlers: FileHandlers,
        about: Callable[[], About],
    ) -> None:
        self._page = page
        self._layout = layout
        self._handlers = handlers
        self._file_handlers = file_handlers
        self._about = about
        self._running: dict[str, Session] = {}  # with a request or a file, by Gradio's id of the tab; event loop only

    def connect(self) -> None:
        """Register every event."""
        place = self._layout
        # All are private: programs use /v1.
        quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}

        # Without a limit: a page that waits for its server must not keep another from opening.
        opened = self._page.load(
            self._open, [place.session, place.tab], place.worded, js=WITH_STORED, concurrency_limit=None, **quiet
        )
        speaking = [place.session, place.language, place.tab]
        spoken = place.language.input(self._speak, speaking, place.worded, js=WITH_SHOWN, **quiet)
        for changed in (opened, spoken):
            changed.success(None, [place.language], None, js=SET_LANGUAGE, **quiet)

        asking = [place.session, place.tab]
        asked: dict[str, Any] = {"js": WITH_SHOWN, **quiet}
        typed = gr.on(
            [place.text.submit, place.send.click], self._submit, [place.text, *asking], place.changing, **asked
        )
        picked = [
            example.click(self._submit, [example, *asking], place.changing, **asked) for example in place.examples
        ]
        for sent in (typed, *picked):
            sent.failure(self._broke, [place.session], place.changing, **quiet)

        # Past the queue: they must work when it is full.
        place.stop.click(self._stop, [place.session], place.changing, queue=False, **quiet)
        place.new.click(self._begin_anew, [place.session], place.changing, queue=False, **quiet)
        self._connect_file(quiet)
        self._page.unload(self._close)

    def _connect_file(self, quiet: dict[str, Any]) -> None:
        session, place = self._layout.session, self._layout.file
        reading: dict[str, Any] = {"js": WITH_FILE, **quiet}
        chosen = place.picker.upload(self._look, [session, place.task, place.sent], place.changing, **reading)
        choices = [place.task, place.text_column, place.truth_column, place.meanings]
        begun = place.run.click(self._label, [session, *choices, place.sent], place.changing, **reading)
        for read in (chosen, begun):
            read.failure(self._file_broke, [session], place.changing, **quiet)
        place.stop.click(self._stop_file, [session], None, queue=False, **quiet)

    async def _open(self, session: Session, said: str, request: gr.Request) -> AsyncIterator[Outputs]:
        tab = TabState.read(said)
        chosen: Outputs = {self._layout.enhance: tab.is_enhanced}
        async with aclosing(self._handlers.open(session, tab, _accept_language(request))) as views:
            async for view in views:
                if tab.mode in session.tasks:
                    chosen[self._layout.mode] = tab.mode
                if labelling := decision_tasks(session.tasks, ENGLISH):
                    chosen[self._layout.file.task] = labelling[0][1]
                if view.draft is not None:
                    chosen[self._layout.text] = view.draft
                outputs = self._worded(session)
                for component, value in chosen.items():
                    outputs[component]["value"] = value
                yield outputs
                chosen = {}  # set once; from here on they are the visitor's

    async def _speak(self, session: Session, language: Language, said: str, request: gr.Request) -> Outputs:
        await self._handlers.recognise(session, TabState.read(said), _accept_language(request))
        session.language = language
        return self._worded(session)

    async def _submit(self, text: str, session: Session, said: str, request: gr.Request) -> AsyncIterator[Outputs]:
        tab, session_hash = TabState.read(said), str(request.session_hash)
        await self._handlers.recognise(session, tab, _accept_language(request))
        self._running[session_hash] = session
        try:
            async with aclosing(self._handlers.submit(session, Ask(text, tab.mode, tab.is_enhanced))) as views:
                async for view in views:
                    yield self._changing(view, session)
        finally:
            self._leave(session_hash, session)

    async def _look(self, session: Session, task: str | None, said: str) -> Outputs:
        if session.file.is_taken:  # what runs has one writer
            return {}
        return self._file(await self._file_handlers.look(session, said, task or ""), session)

    async def _label(
        self, session: Session, task: str, text: str, truth: str, meanings: str, said: str, request: gr.Request
    ) -> AsyncIterator[Outputs]:
        job = LabellingJob(task, text, truth or None, meanings)
        session_hash = str(request.session_hash)
        self._running[session_hash] = session
        try:
            async with aclosing(self._file_handlers.label(session, said, job)) as views:
                async for view in views:
                    yield await asyncio.to_thread(self._file, view, session)  # a report takes a while to write
        finally:
            self._leave(session_hash, session)

    async def _stop_file(self, session: Session) -> None:
        session.file.stop()

    async def _file_broke(self, session: Session) -> Outputs:
        return self._file(FileView(notices=(Notice("internal", is_error=True),)), session)

    def _leave(self, session_hash: str, session: Session) -> None:
        """Something of this tab has ended; something else may go on."""
        if not session.is_running and not session.file.is_taken:
            self._running.pop(session_hash, None)

    async def _stop(self, session: Session) -> Outputs:
        view = self._handlers.stop(session)
        return self._changing(view, session) if view else gr.skip()

    async def _begin_anew(self, session: Session) -> Outputs:
        view = self._handlers.begin_anew(session)
        return self._changing(view, session) if view else gr.skip()

    async def _broke(self, session: Session) -> Outputs:
        return self._changing(self._handlers.broke(session), session)

    async def _close(self, request: gr.Request) -> None:
        """The tab is closed: its answer has no reader."""
        session = self._running.get(str(request.session_hash))
        if session is not None:
            self._handlers.stop(session)
            session.file.stop()

    def _changing(self, view: View, session: Session) -> Outputs:
        place, words = self._layout, STRINGS[session.language]
        return {
            place.conversation: conversation_html(view, words),
            place.decision: decision_html(view.latest, words, tasks=session.tasks, is_running=view.is_running),
            place.notices: notices_html(view.notices, words),
            place.text: gr.skip() if view.draft is None else view.draft,
            place.send: gr.update(visible=not view.is_running),
            place.stop: gr.update(visible=view.is_running),
        }

    def _file(self, view: FileView, session: Session) -> Outputs:
        place, words, columns = self._layout.file, STRINGS[session.language], view.columns
        chosen: Outputs = {}
        if columns is not None:
            chosen[place.text_column] = gr.update(choices=list(columns.names), value=columns.text)
            chosen[place.truth_column] = gr.update(choices=truth_columns(session, words), value=columns.truth or "")
            chosen[place.run] = gr.update(interactive=bool(columns.names))
        else:
            chosen[place.run] = gr.update(visible=not view.is_running)
        return {
            **chosen,
            place.notices: notices_html(view.notices, words),
            place.stop: gr.update(visible=view.is_running),
            place.progress: progress_html(view, words),
            place.outcome: outcome_html(view.outcome, words) if view.outcome else "",
        }

    def _file_worded(self, session: Session) -> Outputs:
        place, words = self._layout.file, STRINGS[session.language]
        return {
            place.hint: hint_html(words),
            place.task: gr.update(choices=decision_tasks(session.tasks, words), label=words.mode),
            place.text_column: gr.update(label=words.text_column),
            place.truth_column: gr.update(choices=truth_columns(session, words), label=words.truth_column),
            place.meanings: gr.update(label=words.meanings, placeholder=words.meanings_example),
            place.run: gr.update(value=words.label_rows),
            place.stop: gr.update(value=words.stop),
        }

    def _worded(self, session: Session) -> Outputs:
        """The whole page in the visitor's language; what is typed or chosen stays."""
        place, words, view = self._layout, STRINGS[session.language], session.view
        return {
            **self._changing(replace(view, draft=None), session),
            **self._file_worded(session),
            place.messages_tab: gr.update(label=words.messages_tab),
            place.file_tab: gr.update(label=words.file_tab),
            place.header: header_html(words),
            place.language: gr.update(value=session.language, label=words.language),
            place.decision_title: title_html(words.decision),
            place.conversation_title: title_html(words.conversation),
            place.new: words.new,
            place.mode: gr.update(choices=modes(session.tasks, words), label=words.mode),
            place.enhance: gr.update(label=words.enhance),
            place.text: gr.update(label=words.message, placeholder=words.placeholder),
            place.send: gr.update(value=words.send, visible=not view.is_running),
            place.stop: gr.update(value=words.stop, visible=view.is_running),
            place.examples_title: title_html(words.examples),
            place.about: about_html(self._about(), words),
        }


def _accept_language(request: gr.Request) -> str:
    return str(request.headers.get("accept-language", ""))
