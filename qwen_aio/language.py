"""The two languages of pages and messages, the choice between them, and words in both."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

Language = Literal["en", "zh"]
T = TypeVar("T")
_HAN = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")
_KANA = re.compile(r"[\u3040-\u30ff]")
_LATIN_WORD = re.compile(r"[A-Za-z\u00c0-\u024f]+")


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


def language_of(text: str) -> Language | None:
    """The language a text is in: "zh" with more Han characters than Latin words; None without letters of either.

    Other languages in Latin letters count as English, Japanese as none.
    """
    num_han, num_words = len(_HAN.findall(text)), len(_LATIN_WORD.findall(text))
    if not num_han + num_words or _KANA.search(text):
        return None
    return "zh" if num_han > num_words else "en"
