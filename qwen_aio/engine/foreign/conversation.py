"""A Prompt, which tasks write in ChatML, read back as messages: who says what. Knows no tokenizer."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from qwen_aio.core import Control, Prompt, Segment, Segments, Text

START, END = Control("<|im_start|>"), Control("<|im_end|>")
PARAGRAPH = Text("\n\n")  # between a system text and the message that it joins


@dataclass(frozen=True)
class Turn:
    """One message; its texts belong together, and some of them may be cut."""

    role: str
    texts: tuple[Text, ...]


@dataclass(frozen=True)
class Conversation:
    """The messages of a prompt."""

    system: tuple[Turn, ...]  # one, or none
    exchanges: tuple[tuple[Turn, ...], ...]  # oldest first; dropped whole
    last: tuple[Turn, ...]
    answer: Text  # the forced beginning of the answer

    def turns(self, *, dropped: int = 0) -> tuple[Turn, ...]:
        """All messages, without the `dropped` oldest exchanges."""
        return (*self.system, *(turn for exchange in self.exchanges[dropped:] for turn in exchange), *self.last)


def read_conversation(prompt: Prompt) -> Conversation | None:
    """The messages of `prompt`; None for a text that is no conversation, to be continued as it is."""
    if not any(isinstance(segment, Control) for segment in prompt.segments):
        return None
    *last, opened = _read_turns(prompt.body) or [Turn("assistant", ())]
    return Conversation(
        system=tuple(turn for turn in _read_turns(prompt.head) if turn.texts[0].text),
        exchanges=tuple(tuple(_read_turns(segments)) for segments in prompt.turns),
        last=tuple(last),
        answer=opened.texts[0] if opened.texts else Text(""),
    )


def with_system_inside(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """`turns` for a family without system messages: that text begins the first message of the user."""
    system, *others = turns
    if system.role != "system":
        return tuple(turns)
    if not others or others[0].role != "user":
        return (Turn("user", system.texts), *others)
    return (Turn("user", (*system.texts, PARAGRAPH, *others[0].texts)), *others[1:])


def _read_turns(segments: Segments) -> list[Turn]:
    """The messages in ChatML; the last one may be open."""
    return [_read_turn(text) for before, text in _pairs(segments) if before == START]


def _pairs(segments: Segments) -> list[tuple[Segment, Text]]:
    return [(before, text) for before, text in itertools.pairwise(segments) if isinstance(text, Text)]


def _read_turn(text: Text) -> Turn:
    role, _, content = text.text.partition("\n")
    return Turn(role, (Text(content, can_cut=text.can_cut),))
