"""The phrase tables of one language, read from its TOML file, and the writing of a text from a phrase.

Knows the syntax of a phrase and nothing of dialogues:
    [a|b|c]      one of the sides, drawn at random, may nest
    {name}       a slot given by the caller, or else drawn from the list of that name
    ...@tag      the phrase may only be used where the tag holds
"""

import random
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

Language = Literal["zh", "en"]
Label = Literal["positive", "neutral", "negative"]
Slots = Mapping[str, str | tuple[str, ...]]

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"\{(\w+)\}")
_NO_TAGS: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Phrasebook:
    """Named lists of phrases of one language, and the writing of a text from them."""

    language: Language
    phrases: Mapping[str, tuple[str, ...]]

    def write(
        self, phrase: str, *, rng: random.Random, slots: Slots | None = None, tags: frozenset[str] = _NO_TAGS
    ) -> str:
        """The phrase with every choice drawn and every slot filled."""
        given = slots or {}
        return written(phrase, rng=rng, fill=lambda name: self._fill(name, rng, given, tags))

    def pick(
        self, name: str, *, rng: random.Random, slots: Slots | None = None, tags: frozenset[str] = _NO_TAGS
    ) -> str:
        """A written phrase of the list of that name."""
        return self.pick_from(self.phrases[name], rng=rng, slots=slots, tags=tags)

    def pick_from(
        self,
        phrases: Sequence[str],
        *,
        rng: random.Random,
        slots: Slots | None = None,
        tags: frozenset[str] = _NO_TAGS,
    ) -> str:
        return self.write(rng.choice(usable(phrases, tags)), rng=rng, slots=slots, tags=tags)

    def _fill(self, name: str, rng: random.Random, given: Slots, tags: frozenset[str]) -> str:
        value = given[name] if name in given else self.phrases[name]
        return value if isinstance(value, str) else rng.choice(usable(value, tags))


@dataclass(frozen=True)
class Thing:
    """What a review is about: a phone, a hotel, a film."""

    names: tuple[str, ...]
    measure: str  # the Chinese counting word
    scene: str  # how one meets it: bought, ordered, stayed in, watched
    tags: frozenset[str]  # what can be said about it; holds its own key and its scene
    is_plural: bool
    of: str  # English: how an aspect is tied to it where the aspect has no way of its own


@dataclass(frozen=True)
class Aspect:
    """One side of a thing that can please or annoy."""

    key: str
    topic: str
    of: str  # English: how it is tied to the thing; empty where the thing decides
    fits: frozenset[str]  # tags of the things that have this side
    is_alone: bool  # belongs to the order rather than to the thing
    is_graded: bool  # "the {topic} is good" makes sense
    issue: tuple[str, ...]
    merit: tuple[str, ...]
    bad: tuple[str, ...]
    good: tuple[str, ...]
    advice: tuple[str, ...]

    def suits(self, thing: Thing) -> bool:
        return bool(self.fits & thing.tags)


@dataclass(frozen=True)
class Intent:
    """Something people say that is no review, and what to answer."""

    key: str
    kind: str
    label: Label
    weight: int
    topic: str
    user: tuple[str, ...]
    open: tuple[str, ...]
    advice: tuple[str, ...]
    ask: tuple[str, ...]
    tags: frozenset[str]  # holds its kind


@dataclass(frozen=True)
class Follow:
    """A later turn of the user that leans on the first, and its answer."""

    after: frozenset[str]
    unfit: frozenset[str]  # tags of the matters it does not go with
    label: Label
    is_last: bool
    user: tuple[str, ...]
    reply: tuple[str, ...]

    def suits(self, state: str, tags: frozenset[str]) -> bool:
        return state in self.after and not self.unfit & tags


@dataclass(frozen=True)
class Notice:
    """A short report in several wordings, and its gist."""

    text: tuple[str, ...]
    gist: tuple[str, ...]


@dataclass(frozen=True)
class Tables(Phrasebook):
    """Everything one language can say."""

    singular: Mapping[str, str]
    plural: Mapping[str, str]
    things: tuple[Thing, ...]
    aspects: tuple[Aspect, ...]
    intents: tuple[Intent, ...]
    follows: tuple[Follow, ...]
    notices: tuple[Notice, ...]


def written(phrase: str, *, rng: random.Random, fill: Callable[[str], str]) -> str:
    """The phrase with every choice drawn and every slot that is left after it filled."""
    while "[" in phrase or "{" in phrase:
        phrase = _CHOICE.sub(lambda found: rng.choice(found[1].split("|")), phrase)
        if "[" not in phrase:
            phrase = _SLOT.sub(lambda found: fill(found[1]), phrase)
    return phrase


def usable(phrases: Iterable[str], tags: frozenset[str]) -> Sequence[str]:
    """The phrases whose tag holds, without their tags."""
    split = [phrase.partition("@") for phrase in phrases]
    return [text for text, _, tag in split if not tag or tag in tags]


def slot_names(phrases: Iterable[str]) -> list[str]:
    """The slots that occur, each once, in order."""
    return list(dict.fromkeys(name for phrase in phrases for name in _SLOT.findall(phrase)))


@cache
def load(language: Language) -> Tables:
    raw = tomllib.loads(Path(__file__).with_name(f"{language}.toml").read_text(encoding="utf-8"))
    return Tables(
        language=language,
        phrases={name: tuple(items) for name, items in raw["phrases"].items()},
        singular=raw["singular"],
        plural=raw["plural"],
        things=tuple(_thing(key, item) for key, item in raw["things"].items()),
        aspects=tuple(_aspect(key, item) for key, item in raw["aspects"].items()),
        intents=tuple(_intent(key, item) for key, item in raw["intents"].items()),
        follows=tuple(_follow(item) for item in raw["follows"].values()),
        notices=tuple(Notice(tuple(item["text"]), tuple(item["gist"])) for item in raw["notices"]),
    )


def _thing(key: str, item: dict[str, Any]) -> Thing:
    return Thing(
        names=tuple(item["names"]),
        measure=item.get("measure", ""),
        scene=item["scene"],
        tags=frozenset({*item["tags"], item["scene"], key, "many" if item.get("is_plural") else "one"}),
        is_plural=item.get("is_plural", False),
        of=item.get("of", " of the {thing}"),
    )


def _aspect(key: str, item: dict[str, Any]) -> Aspect:
    return Aspect(
        key=key,
        topic=item["topic"],
        of=item.get("of", ""),
        fits=frozenset(item["fits"]),
        is_alone=item.get("is_alone", False),
        is_graded=item.get("is_graded", True),
        issue=tuple(item["issue"]),
        merit=tuple(item.get("merit", ())),
        bad=tuple(item["bad"]),
        good=tuple(item.get("good", ())),
        advice=tuple(item["advice"]),
    )


def _intent(key: str, item: dict[str, Any]) -> Intent:
    return Intent(
        key=key,
        kind=item["kind"],
        label=item["label"],
        weight=item["weight"],
        topic=item["topic"],
        user=tuple(item["user"]),
        open=tuple(item.get("open", ())),
        advice=tuple(item.get("advice", ())),
        ask=tuple(item.get("ask", ())),
        tags=frozenset({*item.get("tags", ()), item["kind"]}),
    )


def _follow(item: dict[str, Any]) -> Follow:
    return Follow(
        after=frozenset(item["after"]),
        unfit=frozenset(item.get("unfit", ())),
        label=item["label"],
        is_last=item.get("ends", False),
        user=tuple(item["user"]),
        reply=tuple(item["reply"]),
    )
