"""A conversation in the terminal: what was said, and how it is shown. Knows no keyboard.

An answer appears as it comes; the decision stands between a message and its answer. History and
remarks are the page's own (ui/view.py, ui/strings.py).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, aclosing
from typing import TextIO

from qwen_aio.core import Request, Service
from qwen_aio.language import Both, Language, Strings
from qwen_aio.result import Decided, Decision, Done, Event, TextDelta
from qwen_aio.ui.strings import STRINGS
from qwen_aio.ui.view import View

Connect = Callable[[], AbstractAsyncContextManager[Service]]
# An answer is text from elsewhere: none of it may steer the terminal.
CONTROLS = dict.fromkeys({*range(0x20), *range(0x7F, 0xA0)} - {0x09, 0x0A}, "\ufffd")
DIM, NORMAL = "\x1b[2m", "\x1b[22m"


class ChatStrings(Strings):
    """The words of the chat beside the page's."""

    hint = Both(
        "/new begins anew, /quit or Ctrl-D ends, Ctrl-C stops an answer",
        "/new 开始新对话，/quit 或 Ctrl-D 结束，Ctrl-C 停止回复",
    )
    begun = Both("A new conversation.", "新对话。")
    unclear = Both("no label is certain enough", "没有足够确定的标签")

    def decision(self, decision: Decision) -> str:
        """The label with its probability, or that none is clear."""
        label = decision.emotion if self.in_chinese else decision.label.replace("_", " ").capitalize()
        certainty = self.unclear if decision.abstained else f"{100 * decision.probability:.1f} %"
        return f"{decision.emoji} {label} · {certainty}"


class Screen:
    """A terminal, or a file that gets the same without dim letters."""

    def __init__(self, out: TextIO, *, can_dim: bool) -> None:
        self._out = out
        self._can_dim = can_dim
        self._is_inside_line = False

    def write(self, text: str) -> None:
        """The next piece of an answer, at once."""
        if text:
            self._out.write(text.translate(CONTROLS))
            self._out.flush()
            self._is_inside_line = not text.endswith("\n")

    def end_line(self) -> None:
        """Go to the beginning of a line."""
        if self._is_inside_line:
            self.write("\n")

    def remark(self, line: str) -> None:
        """A line that is not the model's."""
        self.end_line()
        shown = line.translate(CONTROLS)
        self._out.write(f"{DIM}{shown}{NORMAL}\n" if self._can_dim else f"{shown}\n")
        self._out.flush()


class TerminalChat:
    """The messages of one person, and the answers."""

    def __init__(self, connect: Connect, screen: Screen, *, mode: str, language: Language) -> None:
        """`connect` gives the service for one message: a connection may not outlive a pause."""
        self._connect = connect
        self._screen = screen
        self._mode = mode
        self._words, self._page_words = ChatStrings(language), STRINGS[language]
        self._view = View()

    def greet(self) -> None:
        """Say what can be typed."""
        self._screen.remark(self._words.hint)

    def forget(self) -> None:
        """Begin anew."""
        self._view = View()
        self._screen.remark(self._words.begun)

    async def say(self, text: str) -> None:
        """Show what comes back for `text`. Raises what the service raises.

        Where that or a cancellation ends the answer, its beginning stays in the conversation.
        """
        request = Request(
            text,
            mode=self._mode,
            reply=True,
            history=self._view.history(),
            request_id=f"chat-{uuid.uuid4().hex[:12]}",
        )
        self._view = self._view.asking(text, expects_answer=False)
        try:
            async with self._connect() as service, aclosing(service.stream(request)) as events:
                async for event in events:
                    self._view = self._view.after(event)
                    self._show(event)
        finally:
            self._screen.end_line()
            if self._view.is_running:
                self._view = self._view.taken_back()

    def stopped(self) -> None:
        """Say that the answer was stopped."""
        self._screen.remark(self._page_words.notices["stopped"])

    def _show(self, event: Event) -> None:
        match event:
            case Decided(decision):
                self._screen.remark(self._words.decision(decision))
            case TextDelta(text):
                self._screen.write(text)
            case Done():
                for notice in self._view.notices:
                    self._screen.remark(self._page_words.notice(notice))
