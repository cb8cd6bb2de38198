"""Everything a run learns from, made once and kept in the work folder: vocabulary, encoded rows, plan.

Knows all sources and how much of each is taken; encoding and batching are next door.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm  # type: ignore[import-untyped]  # tqdm ships no types

from qwen_aio.core import Task
from training import corpus, world
from training.corpus import Labelled
from training.recipe import TASKS, Recipe
from training.rows import Encoder, Row, Rows
from training.tokenizer import train_tokenizer

Item = TypeVar("Item")

CHAT_TOKENS = 96  # a user's turn in a conversation
SUMMARY_TOKENS = 400
ANCHOR_REPEATS = 20_000  # makes the phrases of the prompts single tokens
# fmt: off
OTHER_FOCUS_WORDS = (
    "失望", "差", "不行", "不像", "太慢", "漏水", "异味", "卡顿", "掉色", "破损", "假货", "划痕", "难吃",
    "偏贵", "吵", "脏", "冷", "态度", "迟到", "推荐", "好用", "划算", "惊喜", "满意", "喜欢", "棒", "物流",
    "包装", "味道", "质量", "尺码", "电池", "屏幕", "售后", "退款", "性价比", "slow", "broken", "rude",
    "dirty", "noisy", "refund", "late", "love", "great", "cheap", "waste", "boring",
)
# fmt: on


@dataclass(frozen=True)
class Conversation:
    """Texts that end with the assistant, what the user felt last, and where they come from."""

    texts: tuple[str, ...]
    label: str
    source: str


class OtherRecipe(Exception):
    """The work folder was begun with other numbers."""


def claim(work: Path, recipe: Recipe) -> None:
    """Make `work` this recipe's own. Raises OtherRecipe if it is another's: its rows would not fit."""
    work.mkdir(parents=True, exist_ok=True)
    note = work / "recipe.txt"
    if note.exists() and note.read_text(encoding="utf-8") != repr(recipe):
        raise OtherRecipe(f"{work} holds a run with other numbers; give another --work or delete it")
    note.write_text(repr(recipe), encoding="utf-8")


def specification(work: Path, data: Path, tasks: Mapping[str, Task], recipe: Recipe) -> str:
    """Content of tokenizer.json, learned only if `work` has none."""
    path = work / "tokenizer.json"
    if not path.exists():
        print("training the tokenizer", flush=True)
        _write_whole(path, lambda partial: partial.write_text(vocabulary(data, tasks, recipe), encoding="utf-8"))
    return path.read_text(encoding="utf-8")


def rows(work: Path, data: Path, encoder: Encoder, recipe: Recipe) -> dict[str, Rows]:
    """Rows of every task, encoded only if `work` does not hold them all."""
    paths = {task: work / f"{task}.npz" for task in TASKS}
    if not all(path.exists() for path in paths.values()):
        for task, made in encode_all(data, encoder, recipe).items():
            _write_whole(paths[task], made.save)
    return {task: Rows.load(path) for task, path in paths.items()}


def _write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """A run killed while writing leaves no half file behind."""
    partial = path.with_suffix(".partial")
    write(partial)
    partial.replace(path)


def vocabulary(data: Path, tasks: Mapping[str, Task], recipe: Recipe) -> str:
    """Content of tokenizer.json, learned from the train rows, the world and the prompts."""
    sentiment = (row.text for row in _kept_rows(data, recipe) for _ in range(2 if row.text.isascii() else 1))
    dialogues = world.dialogues(recipe.world_dialogues // 10, seed=recipe.seed)
    spoken = (text for dialogue in dialogues for _, text in dialogue.turns)
    support = (text for turns in _support(data, tasks, recipe) for text in turns)
    asked = (text for language in ("zh", "en") for text in _requests(data, language, recipe))
    anchors = [label.text for task in tasks.values() for label in task.labels] + ["【情感】:", "user\n", "assistant\n"]
    heads = [part for task in tasks.values() for part in re.split(r"\{[{%].*?[%}]\}", task.template)] * 50
    return train_tokenizer(
        chain(sentiment, spoken, support, asked, anchors * ANCHOR_REPEATS, heads), vocab_size=recipe.shape.vocab_size
    )


def encode_all(data: Path, encoder: Encoder, recipe: Recipe) -> dict[str, Rows]:
    """Rows of every task, by name."""
    made = {
        "sentiment": _decisions(data, encoder, recipe),
        "chat": _conversations(data, encoder, recipe),
        "summarize": _summaries(encoder, recipe),
    }
    return {task: Rows.collect(tqdm(made[task], desc=f"encoding {task}", unit="row", mininterval=5)) for task in TASKS}


def heads(encoder: Encoder) -> dict[str, list[int]]:
    """The tasks' system heads."""
    return {name: encoder.head(task) for name, task in encoder.tasks.items()}


# ---- sentiment ------------------------------------------------------------------------------------------------------


def _decisions(data: Path, encoder: Encoder, recipe: Recipe) -> Iterator[tuple[Row, str]]:
    sentences = world.labelled_sentences(recipe.world_sentences, seed=recipe.seed + 1)
    made = (Labelled(text, label, "world_sentences") for text, label in sentences)
    others = _with_other_focus_words(encoder, recipe)
    rng = random.Random(recipe.seed)
    for number, row in enumerate(chain(_kept_rows(data, recipe), made)):
        limit = recipe.long_text_tokens if number % 4 == 0 else recipe.text_tokens
        asked = rng.choice(others) if rng.random() < recipe.other_focus_share else encoder
        yield asked.decision("sentiment", row.text, row.label, limit=limit), row.source


def _with_other_focus_words(encoder: Encoder, recipe: Recipe) -> list[Encoder]:
    """The encoder, as it would be for operators with other words."""
    rng = random.Random(recipe.seed)
    task = encoder.tasks["sentiment"]
    return [
        encoder.with_task(replace(task, focus_words=tuple(rng.sample(OTHER_FOCUS_WORDS, rng.randint(0, 10)))))
        for _ in range(64)
    ]


def _kept_rows(data: Path, recipe: Recipe) -> Iterator[Labelled]:
    """Train rows; in a trial only the first of every source."""
    seen: dict[str, int] = {}
    for row in corpus.sentiment_rows(data, "train"):
        seen[row.source] = seen.get(row.source, 0) + 1
        if recipe.row_cap is None or seen[row.source] <= recipe.row_cap:
            yield row


# ---- conversations --------------------------------------------------------------------------------------------------


def _conversations(data: Path, encoder: Encoder, recipe: Recipe) -> Iterator[tuple[Row, str]]:
    rng = random.Random(recipe.seed + 2)
    names = {label.name: label.text for label in encoder.tasks["sentiment"].labels}
    for talk in chain(_world_talks(recipe), _support_talks(data, encoder.tasks, recipe), _beyond_talks(data, recipe)):
        feeling = None
        if rng.random() < recipe.feeling_share:
            is_wrong = rng.random() < recipe.wrong_feeling_share
            feeling = rng.choice(list(names.values())) if is_wrong else names[talk.label]
        yield encoder.conversation("chat", talk.texts, limit=CHAT_TOKENS, feeling=feeling), talk.source


def _world_talks(recipe: Recipe) -> Iterator[Conversation]:
    for dialogue in world.dialogues(recipe.world_dialogues, seed=recipe.seed):
        yield Conversation(tuple(text for _, text in dialogue.turns), dialogue.label, "world_dialogues")


def _support_talks(data: Path, tasks: Mapping[str, Task], recipe: Recipe) -> Iterator[Conversation]:
    for texts in _support(data, tasks, recipe):
        yield Conversation(texts, "negative", "support")


def _beyond_talks(data: Path, recipe: Recipe) -> Iterator[Conversation]:
    rng = random.Random(recipe.seed + 3)
    for language in ("zh", "en"):
        for text in _requests(data, language, recipe):
            yield Conversation((text, world.beyond_reply(language, rng=rng)), "neutral", "beyond")


def _support(data: Path, tasks: Mapping[str, Task], recipe: Recipe) -> Sequence[tuple[str, ...]]:
    """A fixed sample of the supportive dialogues, without what the chat task's own rules answer."""
    forbidden = [re.compile(p, re.IGNORECASE) for rule in tasks["chat"].rules if rule.reply for p in rule.patterns]
    return _sample(corpus.support_exchanges(data, forbidden), recipe.support_dialogues, recipe.seed + 4)


def _requests(data: Path, language: str, recipe: Recipe) -> Sequence[str]:
    share = recipe.beyond_requests // 2
    return _sample(corpus.requests(data, language), share, recipe.seed + 5)


def _sample(items: Sequence[Item], count: int, seed: int) -> Sequence[Item]:
    return random.Random(seed).sample(items, min(count, len(items)))


# ---- summaries ------------------------------------------------------------------------------------------------------


def _summaries(encoder: Encoder, recipe: Recipe) -> Iterator[tuple[Row, str]]:
    for text, gist in world.summaries(recipe.world_summaries, seed=recipe.seed + 6):
        yield encoder.conversation("summarize", (text, gist), limit=SUMMARY_TOKENS), "world_summaries"
