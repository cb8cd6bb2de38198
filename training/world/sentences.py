"""Single texts of the small world: sentences with their feeling, and short texts with their gist.

The same count and seed always give the same texts.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from training.world.dialogue import intent_topic
from training.world.review import ReviewKind, matter_slots, pick_matter, review, thing_slots
from training.world.surface import clean, typed
from training.world.tables import Aspect, Label, Language, Slots, Tables, Thing, load, slot_names, usable

_SHARE_CHINESE = 0.6
_SHARE_NOTICES = 0.25
_NUM_TRIES = 5  # draws before a text may repeat
_LABELS: tuple[Label, ...] = ("positive", "neutral", "negative")
_REVIEWS: dict[Label, tuple[ReviewKind, ReviewKind]] = {
    "positive": ("praise", "bad_but"),
    "negative": ("complaint", "good_but"),
}


def labelled_sentences(count: int, *, seed: int) -> Iterator[tuple[str, str]]:
    """(text, label), each label equally often."""
    rng = random.Random(seed)
    seen: set[str] = set()
    for _ in range(count):
        # The label is drawn once: trying again must not thin out the label that has fewer wordings.
        yield _unseen(partial(_labelled, _language(rng), rng.choice(_LABELS), rng), seen)


def summaries(count: int, *, seed: int) -> Iterator[tuple[str, str]]:
    """(text of several sentences, its gist in one)."""
    rng = random.Random(seed)
    seen: set[str] = set()
    for _ in range(count):
        yield _unseen(partial(_summarised, load(_language(rng)), rng), seen)


def _unseen(draw: Callable[[], tuple[str, str]], seen: set[str]) -> tuple[str, str]:
    """A pair whose text is new, if a few draws find one; adds the text to `seen`."""
    for _ in range(_NUM_TRIES):
        text, answer = draw()
        if text not in seen:
            break
    seen.add(text)
    return text, answer


def _language(rng: random.Random) -> Language:
    return "zh" if rng.random() < _SHARE_CHINESE else "en"


def _labelled(language: Language, label: Label, rng: random.Random) -> tuple[str, str]:
    tables = load(language)
    text = _neutral(tables, rng) if label == "neutral" else _felt(tables, label, rng)
    return typed(clean(text, language), language, label, rng), label


def _felt(tables: Tables, label: Label, rng: random.Random) -> str:
    plain, mixed = _REVIEWS[label]
    share = rng.random()
    if share < 0.5:
        return review(tables, plain, rng).text
    if share < 0.7:
        return review(tables, mixed, rng).text
    if share < 0.85:
        return _said(tables, label, rng)
    thing, _, _ = pick_matter(tables, "praise", rng)
    name = "short_good" if label == "positive" else "short_bad"
    return tables.pick(name, rng=rng, slots=thing_slots(tables, thing, rng), tags=thing.tags)


def _neutral(tables: Tables, rng: random.Random) -> str:
    share = rng.random()
    if share < 0.3:
        return _said(tables, "neutral", rng)
    thing, aspect, other = pick_matter(tables, "praise", rng)
    while not (aspect.is_graded and other.is_graded):
        thing, aspect, other = pick_matter(tables, "praise", rng)
    slots = matter_slots(tables, thing, aspect, rng) | {"also_topic": other.topic}
    return tables.pick("fact" if share < 0.75 else "fair", rng=rng, slots=slots, tags=thing.tags)


def _said(tables: Tables, label: Label, rng: random.Random) -> str:
    intents = [intent for intent in tables.intents if intent.label == label]
    [intent] = rng.choices(intents, weights=[intent.weight for intent in intents])
    return intent_topic(tables, intent, rng).text


def _summarised(tables: Tables, rng: random.Random) -> tuple[str, str]:
    text, gist = _noticed(tables, rng) if rng.random() < _SHARE_NOTICES else _reviewed(tables, rng)
    return clean(text, tables.language), clean(gist, tables.language)


def _noticed(tables: Tables, rng: random.Random) -> tuple[str, str]:
    notice = rng.choice(tables.notices)
    slots = {name: tables.pick(name, rng=rng) for name in slot_names(notice.text + notice.gist)}
    text, gist = rng.choice(notice.text), rng.choice(notice.gist)
    return tables.write(text, rng=rng, slots=slots), tables.write(gist, rng=rng, slots=slots)


def _reviewed(tables: Tables, rng: random.Random) -> tuple[str, str]:
    """Good sides first, then bad ones; the gist names them in the same order."""
    thing = rng.choice(tables.things)
    fitting = [aspect for aspect in tables.aspects if aspect.suits(thing)]
    aspects = rng.sample(fitting, min(rng.randint(2, 4), len(fitting)))
    good = [aspect for aspect in aspects if aspect.good and rng.random() < 0.55]
    bad = [aspect for aspect in aspects if aspect not in good]
    slots = thing_slots(tables, thing, rng)
    return _told(tables, thing, (good, bad), slots, rng), _gist(tables, (good, bad), slots, rng)


def _told(
    tables: Tables, thing: Thing, sides: tuple[Sequence[Aspect], Sequence[Aspect]], slots: Slots, rng: random.Random
) -> str:
    good, bad = sides
    mark = "。" if tables.language == "zh" else ". "
    parts = [tables.pick("text_open", rng=rng, slots=slots, tags=thing.tags)]
    for index, aspect in enumerate([*good, *bad]):
        is_turn = bool(good) and index == len(good)
        clauses = aspect.good if index < len(good) else aspect.bad
        link = "text_but" if is_turn else "text_also" if index else None
        clause = tables.write(
            rng.choice(usable(clauses, thing.tags)), rng=rng, slots={**slots, "topic": aspect.topic}, tags=thing.tags
        )
        parts.append((tables.pick(link, rng=rng) if link else "") + clause + mark)
    parts.append(tables.pick("text_end", rng=rng))
    return "".join(parts)


def _gist(tables: Tables, sides: tuple[Sequence[Aspect], Sequence[Aspect]], slots: Slots, rng: random.Random) -> str:
    good, bad = sides
    name = "summary_mixed" if good and bad else "summary_good" if good else "summary_bad"
    listed = {
        "topics": _joined(tables, [aspect.topic for aspect in good], ("comma", "and")),
        "merits": _joined(tables, [rng.choice(aspect.merit) for aspect in good], ("comma", "and")),
        "issues": _joined(tables, [rng.choice(aspect.issue) for aspect in bad], ("issue_comma", "issue_and")),
    }
    return tables.pick(name, rng=rng, slots={**slots, **listed})


def _joined(tables: Tables, items: Sequence[str], marks: tuple[str, str]) -> str:
    comma, last = (tables.phrases[mark][0] for mark in marks)
    if len(items) < 2:
        return "".join(items)
    return comma.join(items[:-1]) + last + items[-1]
