"""Slips of the finger: swapped or lost letters in English, characters that sound alike in Chinese."""

import random
import re
from collections.abc import Collection

from training.world.tables import Language

_SHARE_ENGLISH = 0.06
_SHARE_CHINESE = 0.04
_LONG_WORD = re.compile(r"\b[a-z]{5,}\b")  # short words with a slip are other words
_SOUNDS_LIKE = str.maketrans("在再的得做作吗那已像", "再在得的作做嘛哪以象")


def mistyped(text: str, language: Language, *, spared: Collection[str], rng: random.Random) -> str:
    """The text, now and then with one slip outside the phrases in `spared`: they are to be copied."""
    if language == "zh":
        return _misheard(text, spared, rng) if rng.random() < _SHARE_CHINESE else text
    return _misspelt(text, spared, rng) if rng.random() < _SHARE_ENGLISH else text


def _misheard(text: str, spared: Collection[str], rng: random.Random) -> str:
    places = [i for i, sign in enumerate(text) if ord(sign) in _SOUNDS_LIKE and not _is_in(sign, spared)]
    if not places:
        return text
    at = rng.choice(places)
    return text[:at] + text[at].translate(_SOUNDS_LIKE) + text[at + 1 :]


def _misspelt(text: str, spared: Collection[str], rng: random.Random) -> str:
    words = [found for found in _LONG_WORD.finditer(text) if not _is_in(found[0], spared)]
    if not words:
        return text
    word = rng.choice(words)
    at = word.start() + rng.randint(1, len(word[0]) - 2)
    is_swapped = rng.random() < 0.5
    return text[:at] + (text[at + 1] + text[at] + text[at + 2 :] if is_swapped else text[at + 1 :])


def _is_in(part: str, phrases: Collection[str]) -> bool:
    return any(part in phrase.lower() for phrase in phrases)
