"""A text must have at least one visible character, by its Unicode category.

Invisible: controls, formats (zero-width, direction, tags), surrogates, separators, and marks
without a letter. Letters, digits, punctuation and symbols are visible, but for a few without a
shape. So are private-use characters (GB 18030 puts names there) and unassigned ones: this Python
may be older than the emoji.
"""

from __future__ import annotations

import unicodedata

from qwen_aio.errors import InvalidRequest

INVISIBLE_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zs", "Zl", "Zp", "Mn", "Mc", "Me"})
# Hangul fillers and halves of a missing syllable, the empty Braille pattern, the null notehead.
BLANK_CHARACTERS = frozenset("\u115f\u1160\u3164\uffa0\u2800\U0001d159")
# Never assigned, or reserved for shapeless characters: U+2065, U+FDD0-FDEF, U+FFF0-FFF8.
RESERVED = frozenset({0x2065, *range(0xFDD0, 0xFDF0), *range(0xFFF0, 0xFFF9)})
SHAPELESS_PLANE = 0xE  # tags, variation selectors, and room for more of them


def has_visible(text: str) -> bool:
    """Whether `text` has a visible character."""
    return any(map(_is_visible, set(text)))


def check_visible(text: str, *, param: str) -> None:
    """Raises InvalidRequest, naming `param`, for a text without a visible character."""
    if not has_visible(text):
        raise InvalidRequest(f"{param} has nothing visible in it; send at least one visible character", param=param)


def _is_visible(character: str) -> bool:
    category = unicodedata.category(character)
    if category == "Cn":
        code = ord(character)
        return code not in RESERVED and code >> 16 != SHAPELESS_PLANE and code & 0xFFFE != 0xFFFE
    return category not in INVISIBLE_CATEGORIES and character not in BLANK_CHARACTERS
