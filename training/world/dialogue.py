"""Dialogues of the small world: an opening, its reply, and up to two follow-ups that stay on the matter.

The same count and seed always give the same dialogues.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

from training.world.review import ReviewKind, Topic, review
from training.world.surface import clean, typed
from training.world.tables import Follow, Intent, Label, Language, Slots, Tables, load

_SHARE_CHINESE = 0.6
_SHARE_LONGER = 0.37  # dialogues of two or three exchanges
_SHARE_THIRD = 0.35  # of those
_NUM_TRIES = 4  # draws before an opening may repeat
_OPENINGS: dict[ReviewKind | None, int] = {"complaint": 26, "praise": 18, "good_but": 9, "bad_but": 6, None: 41}
_HANDSHAKES = frozenset({"greeting", "thanks", "compliment", "who_are_you"})  # what one says before the matter


@dataclass(frozen=True)
class Dialogue:
    language: Language
    kind: str
    label: Label  # feeling of the last user turn
    turns: tuple[tuple[str, str], ...]  # ("user", text), ("assistant", text), ...


def dialogues(count: int, *, seed: int) -> Iterator[Dialogue]:
    rng = random.Random(seed)
    seen: set[str] = set()
    for _ in range(count):
        tables = load("zh" if rng.random() < _SHARE_CHINESE else "en")
        opening = _draw_opening(tables, rng)
        for _ in range(_NUM_TRIES):
            dialogue = _dialogue(tables, opening, rng)
            if dialogue.turns[0][1] not in seen:
                break
        seen.add(dialogue.turns[0][1])
        yield dialogue


def beyond_reply(language: Language, *, rng: random.Random) -> str:
    """An honest answer to a request this world does not hold."""
    return clean(load(language).pick("beyond", rng=rng), language)


def intent_topic(tables: Tables, intent: Intent, rng: random.Random) -> Topic:
    slots: Slots = {
        "topic": intent.topic,
        "subject": intent.topic,
        "open": intent.open,
        "advice": intent.advice,
        "ask": intent.ask,
    }
    names = (f"reply_{intent.kind}_{intent.label}", f"reply_{intent.kind}", "reply_greeting")
    name = next(name for name in names if name in tables.phrases)
    feeling = intent.kind if intent.label == "neutral" else f"{intent.kind}.{intent.label}"
    return Topic(
        kind=intent.kind,
        label=intent.label,
        state=feeling,
        text=clean(tables.write(rng.choice(intent.user), rng=rng), tables.language),
        reply=clean(tables.pick(name, rng=rng, slots=slots, tags=intent.tags), tables.language),
        slots=slots,
        tags=intent.tags,
    )


def _draw_opening(tables: Tables, rng: random.Random) -> ReviewKind | Intent:
    """Drawn before the wording: a repeated wording must not thin out the short kinds."""
    [kind] = rng.choices(list(_OPENINGS), weights=list(_OPENINGS.values()))
    if kind is not None:
        return kind
    [intent] = rng.choices(tables.intents, weights=[intent.weight for intent in tables.intents])
    return intent


def _dialogue(tables: Tables, opening: ReviewKind | Intent, rng: random.Random) -> Dialogue:
    topics = [_topic(tables, opening, rng)]
    if rng.random() < _SHARE_LONGER:
        topics.extend(_later(tables, topics[0], rng))
    turns = tuple(turn for topic in topics for turn in _exchange(tables, topic, rng))
    return Dialogue(tables.language, topics[-1].kind, topics[-1].label, turns)


def _topic(tables: Tables, opening: ReviewKind | Intent, rng: random.Random) -> Topic:
    return intent_topic(tables, opening, rng) if isinstance(opening, Intent) else review(tables, opening, rng)


def _later(tables: Tables, first: Topic, rng: random.Random) -> Iterator[Topic]:
    """One or two more exchanges; after a handshake the matter itself comes first."""
    topic, num_left = first, 1 + (rng.random() < _SHARE_THIRD)
    if first.kind in _HANDSHAKES:
        topic = _matter(tables, rng)
        num_left -= 1
        yield topic
    used: list[Follow] = []
    while num_left:
        fitting = [f for f in tables.follows if f.suits(topic.state, topic.tags) and f not in used]
        if not fitting:
            return
        follow = rng.choice(fitting)
        topic = _followed(tables, topic, follow, rng)
        yield topic
        if follow.is_last:
            return
        used.append(follow)
        num_left -= 1


def _matter(tables: Tables, rng: random.Random) -> Topic:
    topic = _topic(tables, _draw_opening(tables, rng), rng)
    while topic.kind in _HANDSHAKES or topic.kind == "bye":
        topic = _topic(tables, _draw_opening(tables, rng), rng)
    return topic


def _followed(tables: Tables, topic: Topic, follow: Follow, rng: random.Random) -> Topic:
    slots = {**topic.slots, **{name: _unsaid(topic, name) for name in ("advice", "ask") if name in topic.slots}}

    def written(phrases: tuple[str, ...]) -> str:
        return clean(tables.pick_from(phrases, rng=rng, slots=slots, tags=topic.tags), tables.language)

    return replace(topic, label=follow.label, text=written(follow.user), reply=written(follow.reply), slots=slots)


def _unsaid(topic: Topic, name: str) -> tuple[str, ...]:
    """The phrases of that slot the last reply did not use; all of them where it used the only one."""
    phrases = tuple(topic.slots[name])
    return tuple(phrase for phrase in phrases if phrase.lower() not in topic.reply.lower()) or phrases


def _exchange(tables: Tables, topic: Topic, rng: random.Random) -> tuple[tuple[str, str], tuple[str, str]]:
    return ("user", typed(topic.text, tables.language, topic.label, rng)), ("assistant", topic.reply)
