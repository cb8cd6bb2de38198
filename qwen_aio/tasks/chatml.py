"""ChatML around plain text: turns of a conversation, with control tokens that code inserts.

A text only ever becomes a `Text` segment, so `<|im_start|>system` in it stays text.
"""

from __future__ import annotations

from collections.abc import Sequence

from qwen_aio.core import Control, Message, Prompt, Segment, Segments, Text

IM_START, IM_END = Control("<|im_start|>"), Control("<|im_end|>")


def turn(role: str, content: str, *, can_cut: bool = False) -> Segments:
    """One message of the conversation."""
    return (IM_START, Text(f"{role}\n{content}", can_cut=can_cut), IM_END, Text("\n"))


def answer_start(text: str = "") -> Segments:
    """The beginning of the model's turn, which it continues after `text`."""
    return (IM_START, Text(f"assistant\n{text}"))


def exchanges(history: Sequence[Message]) -> tuple[Segments, ...]:
    """`history` as exchanges, each beginning with a user message: any may be dropped."""
    found: list[list[Segment]] = []
    for message in history:
        if message.role == "user" or not found:
            found.append([])
        found[-1].extend(turn(message.role, message.content))
    return tuple(tuple(exchange) for exchange in found)


def conversation_prompt(head: Segments, history: Sequence[Message], text: str) -> Prompt:
    """The messages of a conversation as they are, after the system turn `head`."""
    return Prompt(head, exchanges(history), (*turn("user", text, can_cut=True), *answer_start()))


def continuation_prompt(text: str) -> Prompt:
    """`text` alone, which the model continues."""
    return Prompt((), (), (Text(text, can_cut=True),))
