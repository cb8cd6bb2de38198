"""Messages -> segments, by the chat template that a checkpoint brings.

The template never sees what people wrote. Each message is a mark that nobody can guess; what stands
around the marks is the template's own, and only that may hold control tokens. White space at both
ends of a mark shows whether the template strips messages.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping, Sequence

from jinja2 import TemplateError

from qwen_aio.core import Control, Segment, Segments, Text
from qwen_aio.engine.foreign.conversation import Turn, with_system_inside
from qwen_aio.engine.foreign.tokenizer import ForeignTokenizer
from qwen_aio.errors import InvalidModel, InvalidRequest

Render = Callable[[Sequence[Mapping[str, str]]], str]  # messages -> text, up to where the answer begins
PAD = "\u2003"  # em space: str.strip removes it, and no template writes it
# What the expressions of a template can raise, besides Jinja's own.
FAILURES = (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError)
SYSTEM, USER, ASSISTANT = (Turn(role, (Text(role),)) for role in ("system", "user", "assistant"))


class ChatTemplate:
    """Immutable after construction."""

    def __init__(self, render: Render, tokenizer: ForeignTokenizer) -> None:
        """Raises InvalidModel if the template does not render a single message of a user."""
        self._render = render
        self._tokenizer = tokenizer
        self._takes_system = True
        try:
            is_read = _place(USER, self._marked((USER,))) is not None
        except InvalidRequest as exc:
            raise InvalidModel(f"the model's chat template cannot be used: {exc.message}") from exc
        if not is_read:
            raise InvalidModel("the model's chat template leaves out what the user says")
        self._takes_system = self._keeps_system()
        self.end_token = self._find_end()

    def segments(self, turns: Sequence[Turn], answer: Text) -> Segments:
        """The whole prompt, up to where the answer goes on after `answer`.

        Raises InvalidRequest if the template refuses the messages.
        """
        return self._tokenizer.settled([*self._marked(turns), answer])

    def head(self, system: Sequence[Turn]) -> Segments:
        """What every conversation after `system`, which is one message or none, begins with."""
        following = Turn("user", (Text("", can_cut=True),))
        segments = self._marked((*system, following))
        return self._tokenizer.settled(segments[: _place(following, segments)])

    def _keeps_system(self) -> bool:
        try:
            return _place(SYSTEM, self._marked((SYSTEM, USER))) is not None
        except InvalidRequest:
            return False

    def _find_end(self) -> Control | None:
        """The control token that ends an answer, if there is one."""
        try:
            segments = self._marked((USER, ASSISTANT, USER))
        except InvalidRequest:
            return None
        if (place := _place(ASSISTANT, segments)) is None:
            return None
        after = (each for each in segments[place + 1 :] if isinstance(each, Control) or each.text.strip())
        following = next(after, None)
        return following if isinstance(following, Control) else None

    def _marked(self, turns: Sequence[Turn]) -> list[Segment]:
        """The rendered messages, with the texts in the place of their marks. Raises InvalidRequest."""
        turns = turns if self._takes_system else with_system_inside(turns)
        nonce = str(10**30 + secrets.randbelow(10**30))  # digits: no filter for letters changes them
        messages = [
            {"role": turn.role, "content": f"{PAD}{nonce}{number:06}{PAD}"} for number, turn in enumerate(turns)
        ]
        try:
            rendered = self._render(messages)
        except FAILURES as exc:
            raise InvalidRequest(f"the model's chat template refuses these messages: {exc}") from exc
        own, *rest = re.split(f"({PAD}?){nonce}([0-9]{{6}})({PAD}?)", rendered)
        segments = self._tokenizer.divide_controls(own)
        for left, number, right, own in zip(*(iter(rest),) * 4, strict=True):
            segments += _stripped(turns[int(number)].texts, left=not left, right=not right)
            segments += self._tokenizer.divide_controls(own)
        return segments


def _place(turn: Turn, segments: Sequence[Segment]) -> int | None:
    """Where the first text of `turn` stands: this one, not one of the template's that reads the same."""
    return next((number for number, segment in enumerate(segments) if segment is turn.texts[0]), None)


def _stripped(texts: Sequence[Text], *, left: bool, right: bool) -> list[Text]:
    """The texts of one message without white space at its ends, as far as the template strips it."""
    kept = list(texts)
    if left:
        _strip_first(kept, str.lstrip)
    if right:
        kept.reverse()
        _strip_first(kept, str.rstrip)
        kept.reverse()
    return kept


def _strip_first(texts: list[Text], strip: Callable[[str], str]) -> None:
    """Strip the first of `texts`, and the next one where nothing is left of it. What is whole stays the same object."""
    for number, text in enumerate(texts):
        content = strip(text.text)
        if content != text.text:
            texts[number] = Text(content, can_cut=text.can_cut)
        if content:
            return
