"""What the model is to say, as rows: conversations of several sources, and the sentence that sums a text up."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import TypeVar

from qwen_aio.core import Task
from qwen_aio.language import language_of
from qwen_aio.tasks.sentences import sentences
from training import corpus, exchanges, world
from training.recipe import Recipe
from training.rows import Encoder, Row
from training.world.tables import Label, Language

Item = TypeVar("Item")

CHAT_TOKENS = 96  # a user's turn in a conversation
SUMMARY_TOKENS = 400
SHARE_GOES_ON = 1 / 3  # of the plain talks
PLAIN_SOURCES = frozenset({"online_shopping_10_cats", "waimai_10k", "smp2020_usual", "semeval2017_4a", "sst2", "sst5"})
PLAIN_CHARS: Mapping[Language, int] = {"zh": 60, "en": 140}


@dataclass(frozen=True)
class Conversation:
    """Texts that end with the assistant, what the user felt last, and where they come from."""

    texts: tuple[str, ...]
    label: str
    source: str


def conversations(data: Path, encoder: Encoder, recipe: Recipe) -> Iterator[tuple[Row, str]]:
    rng = random.Random(recipe.seed + 2)
    names = {label.name: label.text for label in encoder.tasks["sentiment"].labels}
    talks = chain(
        exchange_talks(recipe, seed=recipe.seed),
        _world_talks(recipe),
        _support_talks(data, encoder.tasks, recipe),
        _beyond_talks(data, recipe),
        _plain_talks(data, encoder.tasks, recipe),
    )
    for talk in talks:
        feeling = None
        if rng.random() < recipe.feeling_share:
            is_wrong = rng.random() < recipe.wrong_feeling_share
            feeling = rng.choice(list(names.values())) if is_wrong else names[talk.label]
        yield encoder.conversation("chat", talk.texts, limit=CHAT_TOKENS, feeling=feeling), talk.source


def exchange_talks(recipe: Recipe, *, seed: int) -> Iterator[Conversation]:
    for dialogue in exchanges.dialogues(recipe.exchanges, seed=seed):
        yield Conversation(tuple(text for _, text in dialogue.turns), dialogue.label, "exchanges")


def _world_talks(recipe: Recipe) -> Iterator[Conversation]:
    for dialogue in world.dialogues(recipe.world_dialogues, seed=recipe.seed):
        yield Conversation(tuple(text for _, text in dialogue.turns), dialogue.label, "world_dialogues")


def _support_talks(data: Path, tasks: Mapping[str, Task], recipe: Recipe) -> Iterator[Conversation]:
    for texts in support(data, tasks, recipe):
        yield Conversation(texts, "negative", "support")


def _beyond_talks(data: Path, recipe: Recipe) -> Iterator[Conversation]:
    rng = random.Random(recipe.seed + 3)
    for language in ("zh", "en"):
        for text in requests(data, language, recipe):
            yield Conversation((text, world.beyond_reply(language, rng=rng)), "neutral", "beyond")


def _plain_talks(data: Path, tasks: Mapping[str, Task], recipe: Recipe) -> Iterator[Conversation]:
    """Real messages of all feelings, each answered by what fits any of its feeling; a third go on to another one."""
    rng = random.Random(recipe.seed + 11)
    said = _short_messages(data, tasks)
    kinds = sorted(said)
    for _ in range(recipe.plain_talks):
        turns: list[str] = []
        for _ in range(2 if rng.random() < SHARE_GOES_ON else 1):
            language, label = rng.choice(kinds)
            turns += (rng.choice(said[language, label]), exchanges.plain_reply(language, label, rng=rng))
        yield Conversation(tuple(turns), label, "plain")


def _short_messages(data: Path, tasks: Mapping[str, Task]) -> dict[tuple[Language, Label], list[str]]:
    """Train rows by language and label; no questions, which want an answer of their own, and nothing grave."""
    forbidden = (*danger_patterns(tasks), corpus.SENSITIVE, re.compile("[?？]"))
    said: dict[tuple[Language, Label], list[str]] = {}
    for row in corpus.sentiment_rows(data, "train"):
        language = language_of(row.text)
        if row.source not in PLAIN_SOURCES or language is None or len(row.text) > PLAIN_CHARS[language]:
            continue
        if not any(pattern.search(row.text) for pattern in forbidden):
            said.setdefault((language, row.label), []).append(row.text)  # type: ignore[arg-type]  # a label's name
    return said


def support(data: Path, tasks: Mapping[str, Task], recipe: Recipe) -> Sequence[tuple[str, ...]]:
    """A fixed sample of the supportive dialogues, without what the word rule of safety meets."""
    grave = danger_patterns(tasks)
    return sample(corpus.support_exchanges(data, grave), recipe.support_dialogues, recipe.seed + 4)


def requests(data: Path, language: str, recipe: Recipe) -> Sequence[str]:
    share = recipe.beyond_requests // 2
    return sample(corpus.requests(data, language), share, recipe.seed + 5)


def sample(items: Sequence[Item], count: int, seed: int) -> Sequence[Item]:
    return random.Random(seed).sample(items, min(count, len(items)))


def danger_patterns(tasks: Mapping[str, Task]) -> list[re.Pattern[str]]:
    """The word rule of the safety task."""
    policy = tasks["safety"].safety
    assert policy is not None, "the safety task is switched off"
    return [re.compile(pattern, re.IGNORECASE) for patterns in policy.patterns.values() for pattern in patterns]


def summaries(encoder: Encoder, recipe: Recipe) -> Iterator[tuple[Row, str]]:
    """The answer is the sentence of the text that shares most letters with its gist: the product only quotes."""
    for text, gist in world.summaries(recipe.world_summaries, seed=recipe.seed + 6):
        telling = max(sentences(text), key=lambda sentence: _likeness(sentence, gist))
        yield encoder.conversation("summarize", (text, telling), limit=SUMMARY_TOKENS), "world_summaries"


def _likeness(sentence: str, gist: str) -> float:
    """Share of the pairs of neighbouring letters that both have."""
    one, other = ({*pairwise(text.lower())} for text in (sentence, gist))
    return len(one & other) / max(1, len(one | other))
