"""A review: one thing, one or two of its aspects, said with a feeling, and the reply that takes it up.

Knows things and aspects. Does not know what happens later in the dialogue; for that it hands on its slots.
"""

import random
from dataclasses import dataclass
from typing import Literal

from training.world.surface import clean
from training.world.tables import Aspect, Label, Slots, Tables, Thing, usable

ReviewKind = Literal["complaint", "praise", "good_but", "bad_but"]
REVIEW_KINDS: tuple[ReviewKind, ...] = ("complaint", "praise", "good_but", "bad_but")
_TONES = ("strong", "plain", "mild")
_SHARE_NAMED = 0.7  # reviews that say what the thing is
_SHARE_TWO = 0.15  # plain complaints and praises about two aspects


@dataclass(frozen=True)
class Topic:
    """What one exchange was about: enough to answer it and to go on."""

    kind: str
    label: Label
    state: str  # which follow-ups may come
    text: str
    reply: str
    slots: Slots
    tags: frozenset[str]


def review(tables: Tables, kind: ReviewKind, rng: random.Random) -> Topic:
    is_sad = kind in ("complaint", "good_but")
    thing, main, other = pick_matter(tables, kind, rng)
    is_two = kind in ("complaint", "praise") and rng.random() < _SHARE_TWO
    slots = matter_slots(tables, thing, main, rng) | _other_slots(kind, main, other)
    frame = rng.choice(usable(tables.phrases[_frames(kind, is_two, rng)], thing.tags))
    slots |= _tone_slots(tables, kind, thing, _tone(kind, frame, rng))
    text = clean(tables.write(frame, rng=rng, slots=slots, tags=thing.tags), tables.language)
    is_named = str(slots["thing"]) in text
    slots |= claim_slots(main, is_sad=is_sad, is_named=is_named)
    tags = thing.tags if is_named else thing.tags | {"bare"}
    reply = tables.pick(f"reply_{kind}_two" if is_two else f"reply_{kind}", rng=rng, slots=slots, tags=tags)
    return Topic(
        kind=kind if kind in ("complaint", "praise") else "mixed",
        label="negative" if is_sad else "positive",
        state="complaint" if is_sad else "praise",
        text=text,
        reply=clean(reply, tables.language),
        slots=slots,
        tags=thing.tags,
    )


def pick_matter(tables: Tables, kind: ReviewKind, rng: random.Random) -> tuple[Thing, Aspect, Aspect]:
    """A thing, the aspect the reply is about, and a second one of the polarity the kind asks for."""
    needs_merit = {
        "complaint": (False, False),
        "praise": (True, True),
        "good_but": (False, True),
        "bad_but": (True, False),
    }
    main_is_good, other_is_good = needs_merit[kind]
    main = rng.choice([aspect for aspect in tables.aspects if aspect.good or not main_is_good])
    thing = rng.choice([thing for thing in tables.things if main.suits(thing)])
    others = [a for a in tables.aspects if a.suits(thing) and a != main and (a.good or not other_is_good)]
    return thing, main, rng.choice(others)


def thing_slots(tables: Tables, thing: Thing, rng: random.Random) -> dict[str, str | tuple[str, ...]]:
    words = tables.plural if thing.is_plural else tables.singular
    return {
        **words,
        "thing": rng.choice(thing.names),
        "measure": thing.measure,
        "did": tables.phrases[f"did_{thing.scene}"],
    }


def matter_slots(tables: Tables, thing: Thing, aspect: Aspect, rng: random.Random) -> dict[str, str | tuple[str, ...]]:
    """What can be said about this aspect of this thing."""
    return thing_slots(tables, thing, rng) | {
        "topic": aspect.topic,
        "of": aspect.of or thing.of,
        "issue": aspect.issue,
        "merit": aspect.merit,
        "bad": bad_clauses(tables, aspect),
        "good": good_clauses(tables, aspect),
        "advice": aspect.advice,
    }


def bad_clauses(tables: Tables, aspect: Aspect) -> tuple[str, ...]:
    can_grade = aspect.is_graded and aspect.good
    return aspect.bad + (tables.phrases["generic_bad"][:1] if can_grade else ())


def good_clauses(tables: Tables, aspect: Aspect) -> tuple[str, ...]:
    return aspect.good + (tables.phrases["generic_good"][:1] if aspect.is_graded and aspect.good else ())


def claim_slots(aspect: Aspect, *, is_sad: bool, is_named: bool) -> dict[str, str | tuple[str, ...]]:
    """How a reply calls the matter: with the thing where the user named it."""
    manner = "bare" if not is_named else "named_alone" if aspect.is_alone else "named"
    return {
        "claim": aspect.issue if is_sad else aspect.merit,
        "matter": f"{{matter_{manner}}}",
        "subject": f"{{subject_{manner}}}",
    }


def _frames(kind: ReviewKind, is_two: bool, rng: random.Random) -> str:
    if kind in ("good_but", "bad_but"):
        return f"say_{kind}"
    mood = "bad" if kind == "complaint" else "good"
    if is_two:
        return f"say_{mood}_two"
    return f"say_{mood}" if rng.random() < _SHARE_NAMED else f"say_{mood}_bare"


def _other_slots(kind: ReviewKind, main: Aspect, other: Aspect) -> dict[str, str | tuple[str, ...]]:
    if kind == "good_but":
        return {"good": _own(other.good, other), "good_topic": other.topic}
    if kind == "bad_but":
        return {"bad": _own(other.bad, other), "bad_topic": other.topic, "issue": other.issue, "good_merit": main.merit}
    return {
        "also_bad": _own(other.bad, other),
        "also_good": _own(other.good, other),
        "also_issue": other.issue,
        "also_merit": other.merit,
        "also_topic": other.topic,
    }


def _own(clauses: tuple[str, ...], aspect: Aspect) -> tuple[str, ...]:
    """Clauses of a second aspect must not draw the topic of the first."""
    return tuple(clause.replace("{topic}", aspect.topic) for clause in clauses)


def _tone(kind: ReviewKind, frame: str, rng: random.Random) -> str:
    if "{end}" not in frame:
        return "plain"
    return rng.choice(_TONES[1:] if kind == "good_but" else _TONES)


def _tone_slots(tables: Tables, kind: ReviewKind, thing: Thing, tone: str) -> dict[str, str | tuple[str, ...]]:
    is_sad = kind in ("complaint", "good_but")
    cheer = f"cheer_{thing.scene}"
    return {
        "end": tables.phrases[f"end_{tone}" if is_sad else "end_good"],
        "mood": tables.phrases[f"mood_{tone}"],
        "cheer": tables.phrases[cheer if cheer in tables.phrases else "cheer"],
    }
