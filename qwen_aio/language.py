"""The two languages of pages and messages, and the choice between them."""

from __future__ import annotations

from typing import Literal

Language = Literal["en", "zh"]


def language_for(accept_language: str, *, wanted: str = "") -> Language:
    """The `wanted` language, the header's first that is one of the two, or English."""
    for part in (wanted, *accept_language.split(",")):
        match part.strip().lower()[:2]:
            case "zh":
                return "zh"
            case "en":
                return "en"
    return "en"
