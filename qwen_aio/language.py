"""The two languages of pages and messages, and which of them a browser asks for."""

from __future__ import annotations

from typing import Literal

Language = Literal["en", "zh"]


def language_for(accept_language: str, *, wanted: str = "") -> Language:
    """The `wanted` language if it is one of ours, else the first of ours in an Accept-Language header, else English."""
    for part in (wanted, *accept_language.split(",")):
        match part.strip().lower()[:2]:
            case "zh":
                return "zh"
            case "en":
                return "en"
    return "en"
