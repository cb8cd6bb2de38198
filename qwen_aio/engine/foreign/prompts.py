"""Prompts of the product -> token ids of another family, cut to the context as ours are."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from qwen_aio.core import Control, Prompt, Segments, Text
from qwen_aio.engine.foreign.chat_template import ChatTemplate
from qwen_aio.engine.foreign.conversation import Conversation, read_conversation
from qwen_aio.engine.foreign.tokenizer import ForeignTokenizer
from qwen_aio.engine.text.truncation import Truncated, encode_within, truncate
from qwen_aio.result import Truncation


@dataclass(frozen=True)
class ForeignPrompts:
    """Immutable; safe in any thread."""

    tokenizer: ForeignTokenizer
    template: ChatTemplate
    opening: Segments  # control tokens in front of a text that is no conversation

    def segments(self, prompt: Prompt) -> Segments:
        """All of the prompt, in this family's form. Raises InvalidRequest."""
        conversation = read_conversation(prompt)
        if conversation is None:
            return self.tokenizer.settled((*self.opening, *prompt.segments))
        return self._conversation(conversation)

    def head(self, head: Segments) -> Segments:
        """What all prompts with this head begin with. Raises InvalidRequest."""
        conversation = read_conversation(Prompt(head, (), ()))
        return self.segments(Prompt(head, (), ())) if conversation is None else self.template.head(conversation.system)

    def truncate(self, prompt: Prompt, *, room: int) -> Truncated:
        """The prompt in at most `room` tokens. Raises ContextExceeded, ContextTooSmall, InvalidRequest."""
        conversation = read_conversation(prompt)
        if prompt.must_fit or conversation is None:
            whole = Prompt((), (), self.segments(prompt), must_fit=prompt.must_fit)
            return truncate(whole, tokenizer=self.tokenizer, room=room)
        # A template may write what it likes for fewer messages, so each number of them is rendered anew.
        fits = partial(self._fits, conversation, room=room)
        most = len(conversation.exchanges)
        dropped = 0 if fits(0) else bisect_left(range(1, most + 1), True, key=fits) + 1
        dropped = min(dropped, most)
        segments = self._conversation(conversation, dropped=dropped)
        truncated = truncate(Prompt((), (), segments), tokenizer=self.tokenizer, room=room)
        return replace(truncated, truncation=Truncation(dropped, truncated.truncation.truncated))

    def continuations(self, prompt: Prompt, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of texts that follow the prompt. Raises InvalidRequest."""
        segments = self.segments(prompt)
        opens = not segments or isinstance(segments[-1], Control)
        opened = partial(self.tokenizer.opened, is_first=not segments)
        return [self.tokenizer.encode_text(opened(text) if text and opens else text) for text in texts]

    def _fits(self, conversation: Conversation, dropped: int, *, room: int) -> bool:
        segments = self._conversation(conversation, dropped=dropped)
        return encode_within(segments, self.tokenizer, room=room) is not None

    def _conversation(self, conversation: Conversation, *, dropped: int = 0) -> Segments:
        return self.template.segments(conversation.turns(dropped=dropped), conversation.answer)


@dataclass(frozen=True)
class TextCounter:
    """Counts the tokens of texts alone: a family has its own control tokens."""

    tokenizer: ForeignTokenizer

    def encode(self, segments: Sequence[Control | Text]) -> list[int]:
        return self.tokenizer.encode([segment for segment in segments if isinstance(segment, Text)])
