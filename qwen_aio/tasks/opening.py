"""A sentence of an answer, checked before anybody reads it. Pure functions.

A very small model sometimes congratulates on bad news, apologises for praise, repeats the message,
answers in another language, speaks of things that nobody named or writes a label template. The words
are the task's (`[opening]` in task.toml), for the one model they are meant for.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Literal

from qwen_aio.language import language_of
from qwen_aio.routing import words_in
from qwen_aio.safeguards import OpeningCheck
from qwen_aio.visible import has_visible

Fault = Literal["empty", "mood", "template", "invented", "echo", "language"]
COMPARED_CHARS = 200  # of the message: an echo shows at its beginning
ECHO = 0.8  # this alike; a greeting may be returned
GREETING_CHARS = 6


def fault_of(
    sentence: str, *, text: str, label: str | None, check: OpeningCheck, earlier: Sequence[str] = ()
) -> Fault | None:
    """What is wrong with `sentence` in an answer to `text`; `label` was decided before.

    `earlier` are the turns before, of both sides.
    """
    if not has_visible(sentence):
        return "empty"
    if next(words_in(sentence, check.unfit.get(label or "", ())), None):
        return "mood"
    if next(words_in(sentence, check.never), None):
        return "template"
    if _names_a_new_thing(sentence, "\n".join((*earlier, text)), check.things):
        return "invented"
    if _is_echo(_letters(sentence), _letters(text[:COMPARED_CHARS])):
        return "echo"
    asked, answered = language_of(text), language_of(sentence)
    return "language" if asked and answered and asked != answered else None


def _names_a_new_thing(sentence: str, said: str, things: Sequence[Sequence[str]]) -> bool:
    return any(next(words_in(sentence, words), None) and not next(words_in(said, words), None) for words in things)


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text.casefold()))


def _is_echo(sentence: str, text: str) -> bool:
    if len(sentence) <= GREETING_CHARS:
        return False
    return sentence in text or SequenceMatcher(None, sentence, text, autojunk=False).ratio() >= ECHO
