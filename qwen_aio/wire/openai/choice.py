"""The choices of a reply: those of chats, of their chunks, and of completions."""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict  # pydantic reads typing's own only from Python 3.12 on

FinishCode = Literal["stop", "length", "content_filter"]


class LikelyToken(TypedDict):
    """A token that was likely in a place."""

    token: str
    """Its text; bytes that are no whole character are written \\xe4."""
    logprob: float
    """Natural logarithm of its probability, by the model alone."""
    bytes: tuple[int, ...] | None
    """Its UTF-8; null for a control token."""


class ChatToken(TypedDict):
    """A sampled token."""

    token: str
    """Its text; bytes that are no whole character are written \\xe4."""
    logprob: float
    """Natural logarithm of its probability, by the model alone."""
    bytes: tuple[int, ...] | None
    """Its UTF-8; null for a control token."""

    top_logprobs: list[LikelyToken]
    """The most likely tokens in its place, best first."""


class ChatLogprobs(TypedDict):
    """Log probabilities of a chat."""

    content: list[ChatToken]
    """Every sampled token but the end."""
    refusal: None
    """Always null."""


class CompletionLogprobs(TypedDict):
    """Log probabilities of a completion; its lists have an entry for each sampled token."""

    tokens: list[str]
    """Their texts."""
    token_logprobs: list[float]
    """Natural logarithms of their probabilities, by the model alone."""
    top_logprobs: list[dict[str, float]]
    """The most likely tokens in their places, and they themselves."""
    text_offset: list[int]
    """Characters of the text before them."""


class ChatAnswer(TypedDict):
    """The assistant's message."""

    role: Literal["assistant"]
    """Always this."""
    content: str
    """The answer, or the fixed format of a decision."""
    refusal: None
    """Always null."""


class ChatDelta(TypedDict, total=False):
    """What a chunk adds to the message; nothing in the last one."""

    role: Literal["assistant"]
    """In the first chunk."""
    content: str
    """The next piece of the text."""


class ChatChoice(TypedDict):
    """The choice of a chat."""

    index: Literal[0]
    """There is one choice."""
    message: ChatAnswer
    """What the assistant says."""
    logprobs: ChatLogprobs | None
    """Null unless they are asked for."""
    finish_reason: FinishCode
    """Why the answer ends; `content_filter`: the safety decision gave its text."""


class ChatChunkChoice(TypedDict):
    """The choice of a chunk of a chat."""

    index: Literal[0]
    """There is one choice."""
    delta: ChatDelta
    """What this chunk adds."""
    logprobs: ChatLogprobs | None
    """Null unless they are asked for."""
    finish_reason: FinishCode | None
    """Null in every chunk but the last."""


class CompletionChoice(TypedDict):
    """The choice of a completion, or of a chunk of it."""

    index: Literal[0]
    """There is one choice."""
    text: str
    """What follows the prompt."""
    logprobs: CompletionLogprobs | None
    """Null unless they are asked for."""
    finish_reason: FinishCode | None
    """Null in every chunk but the last."""
