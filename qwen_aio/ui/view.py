"""What one visitor sees, as frozen data: conversation, decision on the latest message, notices.

Knows no language and no HTML: strings.py has the words, html/ the panels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from qwen_aio.core import Message
from qwen_aio.result import Decided, Decision, Done, Event, Explained, Result, TextDelta

MAX_EXCHANGES = 100  # what the page keeps of a conversation; older ones leave it
MAX_EXCHANGES_SENT = 20  # the latest of them are sent with a request

NoticeKey = Literal[
    "stopped",
    "interrupted",
    "busy",
    "too_long",
    "nothing_visible",
    "turns_dropped",
    "truncated",
    "length",
    "extracted",
    "file_stopped",
    "file_refused",
    "invalid_request",
    "context_too_small",
    "unknown_task",
    "body_too_large",
    "not_ready",
    "draining",
    "rate_limit_exceeded",
    "queue_full",
    "too_many_connections",
    "deadline_exceeded",
    "engine_stopped",
    "no_worker",
    "poison_request",
    "answer_broken",
    "host_refused",
    "invalid_api_key",
    "server_unreachable",
    "connection_lost",
    "bad_reply",
    "internal",
]
NOTICE_KEYS: frozenset[str] = frozenset(get_args(NoticeKey))


@dataclass(frozen=True)
class Notice:
    """A sentence for the visitor in any language. `values` fill its blanks."""

    key: NoticeKey
    values: Mapping[str, str | int] = field(default_factory=dict)
    is_error: bool = False


@dataclass(frozen=True)
class Exchange:
    """A message and the answer to it so far."""

    asked: str
    answer: str = ""


@dataclass(frozen=True)
class LatestMessage:
    """The left panel: the latest text and its decision. `result` is None until all is done."""

    text: str = ""
    decision: Decision | None = None
    result: Result | None = None


@dataclass(frozen=True)
class View:
    """Everything on the page that a request can change."""

    exchanges: tuple[Exchange, ...] = ()
    is_open: bool = False  # the last exchange belongs to the request that runs
    latest: LatestMessage = LatestMessage()
    notices: tuple[Notice, ...] = ()
    is_running: bool = False
    draft: str | None = None  # what the text box becomes; None leaves it alone

    def asking(self, text: str, *, expects_answer: bool) -> View:
        """The view when `text` is sent. Without an answer it does not enter the conversation."""
        view = View(self.exchanges, latest=LatestMessage(text), is_running=True, draft="")
        return view._opened() if expects_answer else view

    def after(self, event: Event) -> View:
        """The view after `event` of the request that runs."""
        match event:
            case Decided(decision):
                return replace(self, latest=replace(self.latest, decision=decision), draft=None)
            case TextDelta(text):
                view = self if self.is_open else self._opened()
                return view._answered(view.exchanges[-1].answer + text)
            case Explained(explanation):
                latest = self.latest
                explained = replace(latest.decision, explanation=explanation) if latest.decision else None
                return replace(self, latest=replace(latest, decision=explained))
            case Done(result):
                return self._done(result)

    def ended(self, *notices: Notice) -> View:
        """The view when nothing more comes. The answer so far stays."""
        return replace(self, is_running=False, is_open=False, notices=notices, draft=None)

    def taken_back(self, *notices: Notice) -> View:
        """The view of a failed request. Without any answer, its text returns to the box."""
        if self.is_open and self.exchanges[-1].answer:
            return self.ended(*notices)
        latest = self.latest if self.latest.decision is not None else LatestMessage()
        return replace(self._closed().ended(*notices), latest=latest, draft=self.latest.text)

    def history(self) -> tuple[Message, ...]:
        """The finished exchanges that travel with the next request, oldest first."""
        finished = [exchange for exchange in self.exchanges if exchange.answer]
        return tuple(
            message
            for exchange in finished[-MAX_EXCHANGES_SENT:]
            for message in (Message("user", exchange.asked), Message("assistant", exchange.answer))
        )

    def _opened(self) -> View:
        exchanges = (*self.exchanges, Exchange(self.latest.text))[-MAX_EXCHANGES:]
        return replace(self, exchanges=exchanges, is_open=True)

    def _closed(self) -> View:
        return replace(self, exchanges=self.exchanges[:-1], is_open=False) if self.is_open else self

    def _answered(self, answer: str) -> View:
        exchange = replace(self.exchanges[-1], answer=answer)
        return replace(self, exchanges=(*self.exchanges[:-1], exchange), draft=None)

    def _done(self, result: Result) -> View:
        view = replace(self, latest=replace(self.latest, decision=result.decision, result=result))
        if result.answer is None:
            return view._closed().ended(*_remarks(result, num_unsent=0))
        view = view if view.is_open else view._opened()
        num_unsent = max(0, sum(bool(exchange.answer) for exchange in view.exchanges[:-1]) - MAX_EXCHANGES_SENT)
        return view._answered(result.answer.text).ended(*_remarks(result, num_unsent=num_unsent))


def _remarks(result: Result, *, num_unsent: int) -> tuple[Notice, ...]:
    """Notices of a request that succeeded; `num_unsent` exchanges were not sent with it."""
    truncations = [part.truncation for part in (result.decision, result.answer) if part is not None]
    num_dropped = num_unsent + max((each.dropped_turns for each in truncations), default=0)
    notices = []
    if num_dropped:
        notices.append(Notice("turns_dropped", {"count": num_dropped}))
    if any(each.truncated for each in truncations):
        notices.append(Notice("truncated"))
    if result.answer is not None and result.answer.finish_reason in ("length", "extracted"):
        notices.append(Notice(result.answer.finish_reason))
    return tuple(notices)
