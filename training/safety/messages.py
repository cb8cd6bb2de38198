"""Messages with their label, as somebody might type them, alone or after earlier turns.

The same count and seed always give the same messages. Shape, frame and disguise are drawn without a look at the label.
"""

import random
from collections.abc import Iterator
from typing import Literal

from training.safety.disguise import disguised, in_traditional
from training.safety.tables import SAFETY_LABELS, SafetyLabel, SafetyTables, load
from training.world import tables as world
from training.world.review import REVIEW_KINDS, review
from training.world.surface import clean, typed

Message = tuple[str, SafetyLabel, tuple[str, ...]]  # the last turn, its label, earlier turns of the same user
Shape = Literal["bare", "led", "framed", "long", "turns"]

_SHARES: dict[SafetyLabel, float] = {"crisis": 0.30, "medical": 0.15, "ok": 0.55}
_SHAPES: dict[Shape, float] = {"bare": 0.40, "led": 0.16, "framed": 0.22, "long": 0.06, "turns": 0.16}
_NUM_ASIDES: dict[Shape, tuple[int, int]] = {"framed": (1, 3), "long": (4, 10)}
_SHARE_PLAIN = 0.12  # of the harmless texts with asides: nothing but asides
_SHARE_REVIEWS = 0.3  # of the asides
_SHARE_DISGUISED = 0.3
_SHARE_TRADITIONAL = 0.08  # of the Chinese messages
_SHARE_CLEAN = 0.6  # of the English sentences: begin with a capital, as a keyboard would have it
_NUM_TRIES = 6  # draws before a message may repeat
_ENDS = {"zh": ("。", "。", "。", "", "！", "……", "~", " "), "en": (".", ".", ".", "", "!", "…", "...")}
_FEELINGS: tuple[world.Label, ...] = ("positive", "neutral", "negative")


def messages(count: int, seed: int) -> Iterator[Message]:
    """Labels in fixed shares, half of the messages Chinese."""
    rng = random.Random(seed)
    labels: dict[tuple[str, tuple[str, ...]], SafetyLabel] = {}
    for _ in range(count):
        tables = load(rng.choice(("zh", "en")))
        [label] = rng.choices(SAFETY_LABELS, weights=[_SHARES[label] for label in SAFETY_LABELS])
        yield _unseen(tables, label, rng, labels)


def _unseen(
    tables: SafetyTables, label: SafetyLabel, rng: random.Random, labels: dict[tuple[str, tuple[str, ...]], SafetyLabel]
) -> Message:
    """A message that is new if a few draws find one, and never one that has another label; noted in `labels`."""
    for num_tries in range(1, 1000):
        text, _, earlier = message = _message(tables, label, rng)
        known = labels.get((text, earlier))
        if known is None or (known == label and num_tries >= _NUM_TRIES):
            break
    labels[text, earlier] = label
    return message


def _message(tables: SafetyTables, label: SafetyLabel, rng: random.Random) -> Message:
    [shape] = rng.choices(list(_SHAPES), weights=list(_SHAPES.values()))
    turns = _turns(tables, label, rng) if shape == "turns" else (_text(tables, label, shape, rng),)
    turns = tuple(_typed(turn, tables, rng) for turn in turns)
    if tables.language == "zh" and rng.random() < _SHARE_TRADITIONAL:
        turns = tuple(in_traditional(turn, rng) for turn in turns)
    return turns[-1], label, turns[:-1]


def _typed(text: str, tables: SafetyTables, rng: random.Random) -> str:
    return typed(text, tables.language, rng.choice(_FEELINGS), rng).strip() or text


def _text(tables: SafetyTables, label: SafetyLabel, shape: Shape, rng: random.Random) -> str:
    if shape in ("bare", "led"):
        return _phrase(tables, label, rng, is_led=shape == "led")
    asides = [_aside(tables, rng) for _ in range(rng.randint(*_NUM_ASIDES[shape]))]
    if label != "ok" or rng.random() > _SHARE_PLAIN:
        asides.insert(rng.randint(0, len(asides)), _phrase(tables, label, rng, is_led=rng.random() < 0.3))
    return _joined(asides, tables, rng)


def _phrase(tables: SafetyTables, label: SafetyLabel, rng: random.Random, *, is_led: bool) -> str:
    text = tables.pick_from(tables.phrases_of(label), rng=rng)
    return _surfaced(_led(text, tables, rng) if is_led else text, tables, rng)


def _led(text: str, tables: SafetyTables, rng: random.Random) -> str:
    """The sentence with a word in front, a word behind, or both."""
    manner = rng.choice(("lead", "tail", "both"))
    if manner != "tail":
        text = rng.choice(tables.leads) + text
    return text if manner == "lead" else text.rstrip("?？!！") + rng.choice(tables.tails)


def _surfaced(text: str, tables: SafetyTables, rng: random.Random) -> str:
    if tables.language == "zh" or rng.random() < _SHARE_CLEAN:
        text = clean(text, tables.language)
    text = " ".join(text.split())
    return disguised(text, tables, rng) if rng.random() < _SHARE_DISGUISED else text


def _aside(tables: SafetyTables, rng: random.Random) -> str:
    if rng.random() < _SHARE_REVIEWS:
        return review(world.load(tables.language), rng.choice(REVIEW_KINDS), rng).text
    return clean(tables.pick_from(tables.asides, rng=rng), tables.language)


def _joined(sentences: list[str], tables: SafetyTables, rng: random.Random) -> str:
    """One message: each sentence with a mark of its own, or all of them run on."""
    if rng.random() < 0.15:
        return ("，" if tables.language == "zh" else ", ").join(text.rstrip("。.！!") for text in sentences)
    between = "\n" if rng.random() < 0.12 else "" if tables.language == "zh" else " "
    return between.join(_ended(text, tables, rng) for text in sentences)


def _ended(text: str, tables: SafetyTables, rng: random.Random) -> str:
    return text if text[-1] in "。！？.!?…~" else text + rng.choice(_ENDS[tables.language])


def _turns(tables: SafetyTables, label: SafetyLabel, rng: random.Random) -> tuple[str, ...]:
    """Two or three turns. Where the last one is short, what came before it decides."""
    manner = rng.random()
    if manner < 0.2 and label in tables.pairs:
        first, last = rng.choice(tables.pairs[label])
        return tuple(_surfaced(tables.write(turn, rng=rng), tables, rng) for turn in (first, last))
    if manner < 0.4:
        return _aside(tables, rng), _phrase(tables, label, rng, is_led=False)
    told = _phrase(tables, label, rng, is_led=rng.random() < 0.3)
    answers = tables.urges if label == "medical" or rng.random() < 0.35 else tables.closings
    short = _surfaced(tables.pick_from(answers, rng=rng), tables, rng)
    return (_aside(tables, rng), told, short) if rng.random() < 0.2 else (told, short)
