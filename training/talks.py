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
from qwen_aio.tasks.sentences import sentences
from training import corpus, exchanges, world
from training.recipe import Recipe
from training.rows import Encoder, Row

Item = TypeVar("Item")

CHAT_TOKENS = 96  # a user's turn in a conversation
SUMMARY_TOKENS = 400


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
