"""The phrase book of one language, read from its TOML file.

[feelings]              the feeling of an intent's messages, where an entry does not give its own
[slots]                 lists to draw from; {food2} is a second, different value of the list `food`
[[exchanges.INTENT]]    user and reply: wordings in the syntax of the little world, every reply fits every message
    slots               lists of this entry alone
    is_raw              the messages are typed exactly as they stand
    then                exchanges that may come next; they know the slots said before; `language` where it changes
[openers]               by intent: replies that fit every message of LANGUAGE/INTENT.txt, one a line
[plain]                 by feeling: what may be said to any message of that feeling, since it names nothing
[[follows]]             exchanges that may come next after any entry of the intents in `after`
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from training.world.tables import Label, Language

_EVERY_MOOD = ("positive", "neutral", "negative")


@dataclass(frozen=True)
class Exchange:
    """One matter in several wordings, and replies that fit them all."""

    language: Language
    intent: str
    feeling: Label  # of the user
    user: tuple[str, ...]
    reply: tuple[str, ...]
    slots: Mapping[str, tuple[str, ...]]
    weight: int
    moods: frozenset[str]  # of the message before
    is_raw: bool
    then: tuple["Exchange", ...]


@dataclass(frozen=True)
class Book:
    """Everything one language's file holds."""

    language: Language
    frames: Mapping[str, tuple[str, ...]]  # by feeling
    slots: Mapping[str, tuple[str, ...]]
    exchanges: Mapping[str, tuple[Exchange, ...]]  # by intent
    follows: Mapping[str, tuple[Exchange, ...]]  # by the intent they come after
    openers: Mapping[str, Exchange]  # by intent: many messages that the same replies fit
    plain: Mapping[Label, tuple[str, ...]]


@cache
def load(language: Language) -> Book:
    folder = Path(__file__).parent
    raw = tomllib.loads((folder / f"{language}.toml").read_text(encoding="utf-8"))
    feelings: Mapping[str, Label] = raw["feelings"]
    exchanges = {
        intent: tuple(_exchange(item, language, intent, feelings[intent]) for item in items)
        for intent, items in raw["exchanges"].items()
    }
    follows: dict[str, tuple[Exchange, ...]] = {}
    for item in raw["follows"]:
        follow = _exchange(item, language, "follow", item["feeling"])
        for intent in item["after"]:
            follows[intent] = (*follows.get(intent, ()), follow)
    openers = {}
    for intent, replies in raw["openers"].items():
        messages = (folder / language / f"{intent}.txt").read_text(encoding="utf-8").splitlines()
        openers[intent] = _exchange({"user": messages, "reply": replies}, language, intent, feelings[intent])
    frames, slots = _lists(raw["frames"]), _lists(raw["slots"])
    return Book(language, frames, slots, exchanges, follows, openers, plain=_lists(raw["plain"]))


def slot_values(exchange: Exchange, name: str) -> tuple[str, ...]:
    """What may stand in the slot of that name: the entry's own list, else the book's."""
    return exchange.slots.get(name) or load(exchange.language).slots[name.rstrip("23")]


def _exchange(item: Mapping[str, Any], language: Language, intent: str, feeling: Label) -> Exchange:
    language = item.get("language", language)
    feeling = item.get("feeling", feeling)
    return Exchange(
        language=language,
        intent=item.get("intent", intent),
        feeling=feeling,
        user=tuple(item["user"]),
        reply=tuple(item["reply"]),
        slots=_lists(item.get("slots", {})),
        weight=item.get("weight", 1),
        moods=frozenset(item.get("moods", _EVERY_MOOD)),
        is_raw=item.get("is_raw", False),
        then=tuple(_exchange(later, language, intent, feeling) for later in item.get("then", ())),
    )


def _lists(raw: Mapping[str, list[str]]) -> dict[Any, tuple[str, ...]]:
    return {name: tuple(items) for name, items in raw.items()}
