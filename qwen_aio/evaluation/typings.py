"""Other ways to type the same text, which must not change a decision."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

Typing = Callable[[str], str]


def without_marks(text: str) -> str:
    """Without punctuation; a hyphen or an apostrophe inside a word stays."""
    kept = re.sub(r"(?<!\w)['-]|['-](?!\w)|[，。！？；：、,.!?;:…~～\"“”（）()]+", " ", text)
    return " ".join(kept.split()) or text


TYPINGS: Mapping[str, Typing] = {
    "upper case": str.upper,
    "lower case": str.lower,
    "white space": lambda text: f"  \n{text}\t ",
    "emoji": lambda text: f"{text} 📦",
    "punctuation": without_marks,
}
