"""Dialogues drawn from the phrase books: one to three exchanges that stay on a matter or leave it.

A later message either leans on the one before or is any other entry's, in either language, answered as it
is answered alone. The same count and seed always give the same dialogues.
"""

import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from training.exchanges.book import Exchange, load, slot_values
from training.exchanges.typos import mistyped
from training.world import Dialogue
from training.world.surface import clean, typed
from training.world.tables import Label, Language, slot_names, written

_SHARE_CHINESE = 0.55
_LENGTHS = {1: 44, 2: 44, 3: 12}  # exchanges in a dialogue
_SHARE_NEW_MATTER = 0.36  # of later messages
_SHARE_NEW_LANGUAGE = 0.45  # of those
_SHARE_FOLLOW_IN_OTHER_LANGUAGE = 0.1  # of the messages that stay on the matter
_SHARES = {
    "complaint": 16,
    "mishap": 3,
    "praise": 9,
    "mixed": 5,
    "order_question": 8,
    "product_question": 6,
    "greeting": 6,
    "thanks": 2,
    "bye": 2,
    "identity": 8,
    "small_talk": 9,
    "good_news": 6,
    "bad_news": 10,
    "anger": 3,
    "compliment": 2,
    "insult": 2,
    "beyond": 10,
    "gibberish": 3,
    "word": 4,
    "feeling_question": 2,
    "irony": 4,
    "not_bad": 4,
}
_SHARE_OPENERS = 0.6  # of the messages of an intent that has them
_SHARE_FRAMED = 0.2  # of the messages that can stand in a frame
_FRAMED = frozenset({"complaint", "praise", "mixed", "order_question", "product_question", "small_talk", "good_news"})
_FRAMED |= {"bad_news", "beyond", "not_bad"}
_TEARS = str.maketrans("😡👎😤", "😢😢😭")  # nobody is angry at bad news
_NUM_TRIES = 20  # draws for a message whose language shows
_IS_PLAIN: dict[Language, re.Pattern[str]] = {  # the message itself shows its language
    "zh": re.compile(r"[\u4e00-\u9fff]"),
    "en": re.compile(r"[A-Za-z']{2,}\W+(?:[A-Za-z']+\W+)?[A-Za-z']{2,}"),
}


@dataclass(frozen=True)
class Drawn:
    """One exchange in the wording of one dialogue."""

    source: Exchange
    user: str
    reply: str
    said: Mapping[str, str]  # slots the user has named so far


def dialogues(count: int, *, seed: int) -> Iterator[Dialogue]:
    rng = random.Random(seed)
    for _ in range(count):
        yield _dialogue(rng)


def plain_reply(language: Language, feeling: Label, *, rng: random.Random) -> str:
    """What fits any message of that feeling; it names nothing."""
    phrase = rng.choice(load(language).plain[feeling])
    return clean(written(phrase, rng=rng, fill=_no_slot), language)


def _no_slot(name: str) -> str:
    raise AssertionError(f"a plain reply names {name}")


def draw(source: Exchange, *, rng: random.Random, before: Drawn | None = None) -> Drawn:
    """A wording of the exchange; its reply names only what the user said now or in the exchange it belongs to."""
    named = dict(before.said) if before and _belongs(source, before.source) else {}
    taken = set(before.said.values()) if before else set()

    def fill(name: str) -> str:
        if name not in named:
            used = taken.union(named.values())
            named[name] = rng.choice([value for value in slot_values(source, name) if value not in used])
        return named[name]

    text = written(rng.choice(source.user), rng=rng, fill=fill)
    if before is None and source.intent in _FRAMED and rng.random() < _SHARE_FRAMED:
        text = rng.choice(load(source.language).frames[source.feeling]).replace("{text}", text)
    fitting = [phrase for phrase in source.reply if named.keys() >= set(slot_names([phrase]))]
    reply = clean(written(rng.choice(fitting), rng=rng, fill=named.__getitem__), source.language)
    if source.is_raw:
        return Drawn(source, text, reply, named)
    text = mistyped(clean(text, source.language), source.language, spared=named.values(), rng=rng)
    text = typed(text, source.language, source.feeling, rng)
    return Drawn(source, text.translate(_TEARS) if source.intent == "bad_news" else text, reply, named)


def _belongs(source: Exchange, before: Exchange) -> bool:
    return source.language == before.language and any(source is later for later in before.then)


def shows_language(drawn: Drawn) -> bool:
    """Whether the message alone tells which language it is in: "ok" and a smile do not."""
    return bool(_IS_PLAIN[drawn.source.language].search(drawn.user))


def _dialogue(rng: random.Random) -> Dialogue:
    [length] = rng.choices(list(_LENGTHS), weights=list(_LENGTHS.values()))
    talk = [_opening("zh" if rng.random() < _SHARE_CHINESE else "en", rng)]
    while len(talk) < length:
        talk.append(_later(talk[-1], rng))
    last = talk[-1].source
    turns = tuple(turn for drawn in talk for turn in (("user", drawn.user), ("assistant", drawn.reply)))
    return Dialogue(last.language, last.intent, last.feeling, turns)


def _opening(language: Language, rng: random.Random) -> Drawn:
    [intent] = rng.choices(list(_SHARES), weights=list(_SHARES.values()))
    book = load(language)
    if intent in book.openers and rng.random() < _SHARE_OPENERS:
        return draw(book.openers[intent], rng=rng)
    entries = book.exchanges[intent]
    [entry] = rng.choices(entries, weights=[entry.weight for entry in entries])
    return draw(entry, rng=rng)


def _later(before: Drawn, rng: random.Random) -> Drawn:
    if rng.random() >= _SHARE_NEW_MATTER:
        follow = _follow(before, rng)
        if follow is not None:
            return follow
    if rng.random() < _SHARE_NEW_LANGUAGE:
        return _in_other_language(before, rng)
    return _opening(before.source.language, rng)


def _in_other_language(before: Drawn, rng: random.Random) -> Drawn:
    other = _other(before.source.language)
    for _ in range(_NUM_TRIES):
        drawn = _opening(other, rng)
        if shows_language(drawn):
            return drawn
    return _opening(before.source.language, rng)


def _follow(before: Drawn, rng: random.Random) -> Drawn | None:
    """What leans on the message before: its entry's own next exchanges as often as those of its intent."""
    source = before.source
    if source.then and rng.random() < 0.5:
        return draw(rng.choice(source.then), rng=rng, before=before)
    shared = _shared_follows(source, source.language)
    if rng.random() < _SHARE_FOLLOW_IN_OTHER_LANGUAGE:
        foreign = _shared_follows(source, _other(source.language))
        drawn = draw(rng.choice(foreign), rng=rng, before=before) if foreign else None
        if drawn is not None and shows_language(drawn):
            return drawn
    return draw(rng.choice(shared), rng=rng, before=before) if shared else None


def _shared_follows(source: Exchange, language: Language) -> list[Exchange]:
    follows = load(language).follows.get(source.intent, ())
    return [follow for follow in follows if source.feeling in follow.moods and follow is not source]


def _other(language: Language) -> Language:
    return "en" if language == "zh" else "zh"
