"""Hard sentences about feelings: negation, contrast, irony, comparison, and the many texts that judge nothing.

All text is drawn from the tables beside this file. A frame gives the structure and its label; what fills it must not
change the label, so good and bad clauses are kept apart. Uses the phrase syntax of the small world, not its texts.
"""

import random
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from training.world.surface import clean, typed
from training.world.tables import Label, Language, Tables, slot_names, usable

LANGUAGES: tuple[Language, ...] = ("zh", "en")
SHARES: Mapping[Label, int] = {"positive": 30, "neutral": 40, "negative": 30}  # percent
_NUM_TRIES = 20  # draws before a text may repeat
_SHARE_LED = 0.25  # judgements that first say what they are about
_LED_KINDS = frozenset({"negation", "contrast", "irony", "comparison", "lukewarm", "understatement", "intensified"})
_MARKS: Mapping[Language, tuple[str, str]] = {"zh": ("。", "！"), "en": (".", "!")}


@dataclass(frozen=True)
class Aspect:
    """One side of the things of a domain: its names, and clauses by what they say of it."""

    names: tuple[str, ...]
    good: tuple[str, ...]
    bad: tuple[str, ...]
    flaw: tuple[str, ...]  # small enough to be outweighed by anything good
    fact: tuple[str, ...]


@dataclass(frozen=True)
class Domain:
    """Things that are judged by the same aspects: gadgets, hotels, films."""

    name: str
    group: str  # how one meets them: goods, visit, watch, software
    this: tuple[str, ...]
    things: tuple[str, ...]
    aspects: tuple[Aspect, ...]


@dataclass(frozen=True)
class Frame:
    """A phrasing whose label holds for whatever fills it."""

    kind: str
    label: Label
    text: str
    domains: tuple[Domain, ...]  # that it can speak of
    is_told: bool  # the author does not speak of what happened to him


@dataclass(frozen=True)
class Contrast:
    """Everything one language can say here."""

    tables: Tables
    domains: tuple[Domain, ...]
    frames: tuple[Frame, ...]


def sentences(count: int, seed: int) -> Iterator[tuple[str, str]]:
    """(text, label); the same count and seed always give the same texts."""
    rng = random.Random(seed)
    seen: set[str] = set()
    for _ in range(count):
        language = rng.choice(LANGUAGES)
        [label] = rng.choices(tuple(SHARES), weights=tuple(SHARES.values()))
        frames = [frame for frame in load(language).frames if frame.label == label]
        for _ in range(_NUM_TRIES):
            text = sentence(language, rng.choice(frames), rng)
            if text not in seen:
                break
        seen.add(text)
        yield text, label


def sentence(language: Language, frame: Frame, rng: random.Random) -> str:
    """The frame, filled and typed as somebody might."""
    tables = load(language).tables
    domain = rng.choice(frame.domains)
    phrase = frame.text
    is_judged = frame.label != "neutral" or frame.kind == "lukewarm"
    if is_judged and frame.kind in _LED_KINDS and rng.random() < _SHARE_LED:
        phrase = rng.choice(tables.phrases[f"lead_{domain.group}"]) + phrase
    tags = frozenset({domain.name, domain.group} | (set() if frame.is_told else {"own"}))
    slots = _drawn_once(tables, phrase, tags, rng) | _matter(domain, rng)
    text = tables.write(phrase, rng=rng, slots=slots, tags=tags)
    return typed(clean(_ended(text, language, frame.label, rng), language), language, frame.label, rng)


@cache
def load(language: Language) -> Contrast:
    raw = tomllib.loads(Path(__file__).with_name(f"{language}.toml").read_text(encoding="utf-8"))
    phrases = {name: tuple(items) for name, items in raw["phrases"].items()}
    domains = tuple(_domain(name, item) for name, item in raw["domains"].items())
    return Contrast(
        tables=Tables(
            language, phrases, singular={}, plural={}, things=(), aspects=(), intents=(), follows=(), notices=()
        ),
        domains=domains,
        frames=tuple(_frame(group, text, domains) for group in raw["frames"] for text in group["texts"]),
    )


def _domain(name: str, item: dict[str, Any]) -> Domain:
    return Domain(
        name=name,
        group=item["group"],
        this=tuple(item["this"]),
        things=tuple(item["things"]),
        aspects=tuple(Aspect(**{field: tuple(said) for field, said in raw.items()}) for raw in item["aspects"]),
    )


def _frame(group: dict[str, Any], tagged: str, domains: tuple[Domain, ...]) -> Frame:
    text, _, tag = tagged.partition("@")
    return Frame(
        kind=group["kind"],
        label=group["label"],
        text=text,
        domains=tuple(domain for domain in domains if not tag or tag in (domain.name, domain.group)),
        is_told=group.get("told", False),
    )


def _drawn_once(
    tables: Tables, phrase: str, tags: frozenset[str], rng: random.Random
) -> dict[str, str | tuple[str, ...]]:
    """One value for each list the phrase names, so that Anna stays Anna; {other_name} is somebody else."""
    drawn: dict[str, str | tuple[str, ...]] = {}
    for name in dict.fromkeys(slot.removeprefix("other_") for slot in slot_names([phrase])):
        if name in tables.phrases:
            drawn[name], drawn[f"other_{name}"] = rng.sample(usable(tables.phrases[name], tags), 2)
    return drawn


def _matter(domain: Domain, rng: random.Random) -> dict[str, str | tuple[str, ...]]:
    """What can be said about one thing; each clause is about an aspect of its own, so that none contradicts another."""
    first, second, third, fourth = rng.sample(domain.aspects, 4)
    return {
        "thing": rng.choice(domain.things),
        "this": rng.choice(domain.this),
        "aspect": rng.choice(first.names),
        "other_aspect": rng.choice(second.names),
        "good_clause": first.good,
        "good_also": third.good,
        "bad_clause": second.bad,
        "bad_also": fourth.bad,
        "flaw": second.flaw,
        "fact": first.fact,
        "fact_also": second.fact,
        "at": "@",
    }


def _ended(text: str, language: Language, label: Label, rng: random.Random) -> str:
    """With a final mark where a careful writer would set one; only feelings are called out."""
    if not text[-1].isalnum() or re.search(r"(#|http|\.com)\S*$", text):
        return text
    stop, cry = _MARKS[language]
    return text + (cry if label != "neutral" and rng.random() < 0.2 else stop)
