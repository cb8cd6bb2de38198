"""The two languages of pages and messages, the choice between them, and words in both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

Language = Literal["en", "zh"]
T = TypeVar("T")


@dataclass(frozen=True)
class Both(Generic[T]):
    """Words in both languages. As an attribute of Strings, those in its language."""

    english: T
    chinese: T

    def __get__(self, strings: Strings, owner: type[Strings]) -> T:
        return self.chinese if strings.in_chinese else self.english


class Strings:
    """The words of a page in one language; each page lists its own."""

    code = Both("en", "zh-CN")  # for the page's lang attribute

    def __init__(self, language: Language) -> None:
        self.in_chinese = language == "zh"


def language_for(accept_language: str, *, wanted: str = "") -> Language:
    """The `wanted` language, the header's first that is one of the two, or English."""
    for part in (wanted, *accept_language.split(",")):
        match part.strip().lower()[:2]:
            case "zh":
                return "zh"
            case "en":
                return "en"
    return "en"
