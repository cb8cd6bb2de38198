"""Text as people type it -> text as the model reads it. Pure functions; the template calls them.

A text that needs nothing is returned as it is and scores bit for bit as before. Logs, history and
quotations keep the original.
"""

from __future__ import annotations

import re
from typing import NamedTuple

# Letters and digits alone: full-width punctuation, circled numbers and fractions stay as typed.
_NARROW = {wide: wide - 0xFEE0 for first, last in ("０９", "ＡＺ", "ａｚ") for wide in range(ord(first), ord(last) + 1)}
_CJK = r"\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"  # each of these characters is a word of its own
_WORD = re.compile(rf"[{_CJK}]+|[^\W_{_CJK}]+")

_KEPT_IN_RUN = 3  # www, III and 哈哈哈 are words; longer runs only stress
_LETTER_RUN = re.compile(rf"([^\W\d_])\1{{{_KEPT_IN_RUN},}}", re.IGNORECASE)
_PICTURE = r"[\u2600-\u27bf\u2b50\u2b55\U0001f000-\U0001faff]"
_MODIFIERS = r"[\ufe0f\U0001f3fb-\U0001f3ff]{0,2}"
_EMOJI = rf"{_PICTURE}{_MODIFIERS}(?:\u200d{_PICTURE}{_MODIFIERS}){{0,4}}"  # bounded: a hostile chain costs no more
_EMOJI_RUN = re.compile(rf"({_EMOJI})\1{{{_KEPT_IN_RUN},}}")

_CAPITALS = rf"(?<![^\W_{_CJK}])[A-Z0-9]+(?:['’][A-Z]+)*(?![^\W_{_CJK}])"
_SHOUTED_ROW = re.compile(rf"{_CAPITALS}(?:[\s,.!?;:&\"-]+{_CAPITALS}){{2,}}")
_CAPITAL_WORD = re.compile(rf"{_CAPITALS}")
_NOT_ALL_CAPITALS = re.compile(rf"[a-z{_CJK}]")
_MIN_SHOUTED_WORDS = 3  # in a row; fewer may be names: USB HDMI
_MIN_SHOUTED_LETTERS = 4  # of a text that is all capitals: GOOD, SO BAD


class Calmed(NamedTuple):
    """A text without its stress, and whether there was any."""

    text: str
    emphasis: bool


def narrow(text: str) -> str:
    """`text` without outer white space, its full-width letters and digits made narrow."""
    return text.strip().translate(_NARROW)


def calm(text: str) -> Calmed:
    """`narrow(text)`, with long runs of a letter or an emoji shortened and English capitals lowered.

    A word with a digit is never shortened or lowered: it may be a model number.
    """
    plain = narrow(text)
    calmed = _lower_capitals(_EMOJI_RUN.sub(_shortened, _shorten_letters(plain)))
    return Calmed(calmed, emphasis=calmed != plain)


def _shorten_letters(text: str) -> str:
    if not _LETTER_RUN.search(text):
        return text
    return _WORD.sub(lambda word: word[0] if _has_digit(word[0]) else _LETTER_RUN.sub(_shortened, word[0]), text)


def _shortened(run: re.Match[str]) -> str:
    return run[0][: _KEPT_IN_RUN * len(run[1])]


def _lower_capitals(text: str) -> str:
    """All of a text that has nothing but capitals, else rows of at least three words."""
    if _NOT_ALL_CAPITALS.search(text):
        return _SHOUTED_ROW.sub(lambda row: _lowered(row[0], min_words=_MIN_SHOUTED_WORDS), text)
    return _lowered(text, min_letters=_MIN_SHOUTED_LETTERS)


def _lowered(text: str, *, min_words: int = 1, min_letters: int = 1) -> str:
    """Its words in lower case, unless those without a digit are too few."""
    words = [word for word in _CAPITAL_WORD.findall(text) if not _has_digit(word)]
    if len(words) < min_words or sum(map(len, words)) < min_letters:
        return text
    return _CAPITAL_WORD.sub(lambda word: word[0] if _has_digit(word[0]) else word[0].lower(), text)


def _has_digit(word: str) -> bool:
    return any(character.isdigit() for character in word)
