"""How people hide a sentence from a filter, or simply type it badly.

Knows characters only, not what the text says: harmless text is disguised as often as dangerous text.
"""

import random
import re
from collections.abc import Callable, Mapping
from functools import cache

from opencc import OpenCC

from training.safety.tables import SafetyTables
from training.world.tables import Language

_MARKS = re.compile(r"[，。！？；：、,.!?;:…~“”\"]+")
_WORD = re.compile(r"[A-Za-z']{3,}")
_SEPARATORS = (" ", ".", "·", "*", "-", "_", "  ", "/", "，")
_LEET = str.maketrans({"a": "4", "e": "3", "i": "1", "o": "0", "s": "5"})
_EMOJI = (
    *("😭", "🙂", "😊", "💔", "🥲", "😅", "🙏", "🔪", "💊", "🌊"),
    *("🌙", "❤️", "😂", "💀", "😩", "🚑", "🫠", "👋", "☹️", "✨"),
)
_TRADITIONAL = ("s2t", "s2tw", "s2twp", "s2hk")

Disguise = Callable[[str, SafetyTables, random.Random], str]


def disguised(text: str, tables: SafetyTables, rng: random.Random) -> str:
    """The text after one or two rules; a rule that finds nothing to change gives way to another."""
    rules = rng.sample(_RULES[tables.language], k=len(_RULES[tables.language]))
    num_left = 1 + (rng.random() < 0.25)
    for rule in rules:
        changed = rule(text, tables, rng)
        num_left -= changed != text
        text = changed
        if not num_left:
            break
    return text


def in_traditional(text: str, rng: random.Random) -> str:
    """Traditional characters, as written in Taiwan, Hong Kong or elsewhere."""
    converted: str = _converter(rng.choice(_TRADITIONAL)).convert(text)
    return converted


@cache
def _converter(config: str) -> OpenCC:
    return OpenCC(config)


def _with_sounds(text: str, tables: SafetyTables, rng: random.Random) -> str:
    return _replaced(text, tables.sounds, rng, most=3, is_english=tables.language == "en")


def _with_swaps(text: str, tables: SafetyTables, rng: random.Random) -> str:
    return _replaced(text, tables.swaps, rng, most=2, is_english=tables.language == "en")


def _replaced(
    text: str, words: Mapping[str, tuple[str, ...]], rng: random.Random, *, most: int, is_english: bool
) -> str:
    """Up to `most` words that occur, each written another way; a longer word is found before a part of it."""
    edge = r"\b" if is_english else ""
    alternatives = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
    found = list(re.finditer(f"{edge}(?:{alternatives}){edge}", text))
    for match in sorted(rng.sample(found, k=min(len(found), rng.randint(1, most))), key=lambda m: -m.start()):
        text = text[: match.start()] + rng.choice(words[match[0]]) + text[match.end() :]
    return text


def _spaced_characters(text: str, _tables: SafetyTables, rng: random.Random) -> str:
    """A stretch of Chinese with something between its characters."""
    length = rng.choice((3, 4, 6, len(text)))
    start = rng.randint(0, max(0, len(text) - length))
    stretch = [char for char in text[start : start + length] if not _MARKS.fullmatch(char)]
    return text[:start] + rng.choice(_SEPARATORS).join(stretch) + text[start + length :] or text


def _spaced_letters(text: str, _tables: SafetyTables, rng: random.Random) -> str:
    """One or two English words, or all of them, with something between the letters."""
    separator = rng.choice(_SEPARATORS[:6])
    if rng.random() < 0.2:
        return re.sub(r"[A-Za-z']+", lambda word: separator.join(word[0]), text)
    return _some_words(text, rng, lambda word: separator.join(word))


def _leet(text: str, _tables: SafetyTables, rng: random.Random) -> str:
    if rng.random() < 0.2:
        return text.translate(_LEET)
    return _some_words(text, rng, lambda word: word.translate(_LEET))


def _without_letters(text: str, _tables: SafetyTables, rng: random.Random) -> str:
    """Letters that are missing, doubled, in the wrong order or starred out."""

    def damaged(word: str) -> str:
        at = rng.randrange(1, len(word))
        return rng.choice(
            (
                word[:at] + word[at + 1 :],
                word[:at] + word[at] + word[at:],
                word[: at - 1] + word[at] + word[at - 1] + word[at + 1 :],
                word[:at] + "*" + word[at + 1 :],
                word[0] + re.sub("[aeiou]", "", word[1:]),
            )
        )

    return _some_words(text, rng, damaged)


def _some_words(text: str, rng: random.Random, change: Callable[[str], str]) -> str:
    found = list(_WORD.finditer(text))
    for match in sorted(rng.sample(found, k=min(len(found), rng.randint(1, 3))), key=lambda m: -m.start()):
        text = text[: match.start()] + change(match[0]) + text[match.end() :]
    return text


def _without_character(text: str, _tables: SafetyTables, rng: random.Random) -> str:
    """One character is missing, doubled or starred out."""
    at = rng.randrange(len(text))
    return text[:at] + rng.choice(("", "", text[at] * 2, "*", "x")) + text[at + 1 :] or text


def _bare(text: str, tables: SafetyTables, rng: random.Random) -> str:
    """No marks: English words stay apart, Chinese ones may run together."""
    between = " " if tables.language == "en" or rng.random() < 0.5 else ""
    return _MARKS.sub(between, text).replace("  ", " ").strip() or text


def _cased(text: str, _tables: SafetyTables, rng: random.Random) -> str:
    return text.upper() if rng.random() < 0.25 else text.lower()


def _with_emoji(text: str, _tables: SafetyTables, rng: random.Random) -> str:
    return text + rng.choice(("", " ")) + rng.choice(_EMOJI) * rng.choice((1, 1, 1, 2, 3))


_RULES: Mapping[Language, tuple[Disguise, ...]] = {
    "zh": (_with_sounds, _with_sounds, _with_swaps, _spaced_characters, _without_character, _bare, _with_emoji),
    "en": (
        *(_with_sounds, _with_sounds, _with_swaps, _spaced_letters),
        *(_leet, _without_letters, _bare, _cased, _with_emoji),
    ),
}
