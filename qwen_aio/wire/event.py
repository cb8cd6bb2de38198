"""A stream on the wire: server-sent events, one line of JSON each; `done` or `error` ends it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from pydantic import ValidationError

from qwen_aio.errors import QwenAioError
from qwen_aio.result import Decided, Done, Event, Explained, Explanation, FinishReason, Phrase, TextDelta, Usage
from qwen_aio.wire.error import ErrorResponse
from qwen_aio.wire.result import DecisionShape, RunResponse
from qwen_aio.wire.shape import Answered

KEEP_ALIVE = b": still here\n\n"  # a comment: clients skip it
T = TypeVar("T")


class TokenShape(Answered):
    """The `token` event."""

    index: int
    """From 0."""
    text: str
    """The next piece of the answer: whole characters, perhaps none."""


class ExplanationShape(Answered):
    """The `explanation` event, after the tokens."""

    label: str
    """The most probable label, which the weights are about."""
    phrases: tuple[Phrase, ...]
    """The strongest first; none where the text is one phrase."""
    reason: str | None
    """A sentence about them."""
    usage: Usage
    """Tokens of all decisions it took."""
    total_ms: float
    """From the first to the last of them."""


class DoneShape(RunResponse):
    """The `done` event: the whole result. `finish_reason` is the reply's, null without one."""

    finish_reason: FinishReason | None
    """The reply's; null without one."""


def event_frame(event: Event) -> bytes:
    """`event` as it is sent."""
    match event:
        case Decided(decision):
            return frame("decision", DecisionShape.from_core(decision))
        case TextDelta(text, index=index):
            return frame("token", TokenShape(index=index, text=text))
        case Explained(explanation):
            return frame("explanation", ExplanationShape(**vars(explanation)))
        case Done(result):
            reason = result.answer.finish_reason if result.answer else None
            fields = vars(RunResponse.from_core(result))
            return frame("done", DoneShape(**fields, finish_reason=reason))


def error_frame(error: QwenAioError, request_id: str) -> bytes:
    """The last event of a stream that failed."""
    return frame("error", ErrorResponse.from_core(error, request_id))


def read_event(name: str, data: bytes) -> Event | None:
    """See `read_frame`."""
    return read_frame(name, data, _READERS)


_READERS: dict[str, Callable[[bytes], Event]] = {
    "decision": lambda data: Decided(DecisionShape.model_validate_json(data).to_core()),
    "token": lambda data: TextDelta(**vars(TokenShape.model_validate_json(data))),
    "explanation": lambda data: Explained(Explanation(**vars(ExplanationShape.model_validate_json(data)))),
    "done": lambda data: Done(RunResponse.model_validate_json(data).to_core()),
}


def frame(name: str, shape: Answered) -> bytes:
    """One event as it is sent."""
    return f"event: {name}\ndata: ".encode() + shape.to_json() + b"\n\n"


def read_frame(name: str, data: bytes, readers: Mapping[str, Callable[[bytes], T]]) -> T | None:
    """The event, read by the reader for `name`; None for one that this version does not know.

    Raises the error in an `error` event, and ValueError if `data` is not shaped like `name`.
    """
    try:
        if name != "error":
            return readers[name](data) if name in readers else None
        error = ErrorResponse.model_validate_json(data).to_core()
    except ValidationError as exc:
        raise ValueError(f"event {name} has an unexpected shape") from exc
    raise error
