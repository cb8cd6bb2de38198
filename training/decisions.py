"""Rows of the decisions: sentiment under several prompts, and safety; what is wanted of each label.

Real rows are wanted as a mean of their label and the teacher's opinion, drawn ones a little less than certain.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qwen_aio.core import Task
from qwen_aio.language import Language
from qwen_aio.worker.execution.safety import WINDOW_CHARS, windows
from training import contrast, corpus, safety, world
from training.corpus import Labelled
from training.recipe import Recipe
from training.rows import Encoder, Row
from training.talks import danger_patterns, exchange_talks, requests, sample, support
from training.teacher import GROUPS
from training.variations import varied

LONG_CHARS: Mapping[Language, int] = {"zh": 150, "en": 300}
WINDOW_TOKENS = 240  # of a text that safety is decided over: more than a window of the product holds
# fmt: off
OTHER_FOCUS_WORDS = (
    "失望", "差", "不行", "不像", "太慢", "漏水", "异味", "卡顿", "掉色", "破损", "假货", "划痕", "难吃",
    "偏贵", "吵", "脏", "冷", "态度", "迟到", "推荐", "好用", "划算", "惊喜", "满意", "喜欢", "棒", "物流",
    "包装", "味道", "质量", "尺码", "电池", "屏幕", "售后", "退款", "性价比", "slow", "broken", "rude",
    "dirty", "noisy", "refund", "late", "love", "great", "cheap", "waste", "boring",
)
# fmt: on

Soft = Mapping[str, float]  # label name -> wanted probability
Teacher = Callable[[Sequence[Labelled]], NDArray[np.float32]]  # rows -> probabilities (rows, LABELS)
LABELS = ("positive", "neutral", "negative")
PERSONAL = frozenset(
    {*GROUPS["weibo"], *GROUPS["dialogue"], *GROUPS["tweets"]}
)  # sets of what people say of themselves
TWO_CLASSES = frozenset({*GROUPS["shops"], *GROUPS["films"]})  # sets without neutral rows


def sentiment_rows(data: Path, encoder: Encoder, recipe: Recipe, teacher: Teacher) -> Iterator[tuple[Row, str]]:
    others = _with_other_focus_words(encoder, recipe)
    rng = random.Random(recipe.seed)
    for number, (row, soft) in enumerate(chain(_judged(data, recipe, teacher), _drawn(recipe))):
        limit = recipe.long_text_tokens if number % 4 == 0 else recipe.text_tokens
        asked = rng.choice(others) if rng.random() < recipe.other_focus_share else encoder
        yield asked.decision("sentiment", row.text, soft, limit=limit), row.source
        if rng.random() < recipe.varied_share:
            text = varied(row.text, row.label, rng)  # type: ignore[arg-type]  # a label's name
            yield encoder.decision("sentiment", text, soft, limit=limit), row.source


def reworded_rows(
    data: Path, encoder: Encoder, recipe: Recipe, teacher: Teacher, name: str
) -> Iterator[tuple[Row, str]]:
    """A share of the rows under another prompt; those whose label it does not know are left out."""
    rng = random.Random(f"{recipe.seed}-{name}")
    known = {label.name for label in encoder.tasks[name].labels}
    for row, soft in chain(_judged(data, recipe, teacher), _drawn(recipe)):
        if rng.random() < recipe.reworded_share and row.label in known:
            total = sum(soft[label] for label in known)
            wanted = {label: soft[label] / total for label in known}
            yield encoder.decision(name, row.text, wanted, limit=recipe.text_tokens), row.source


def _judged(data: Path, recipe: Recipe, teacher: Teacher) -> Iterator[tuple[Labelled, Soft]]:
    """The train rows, each with what it is taken for: its label and the teacher's opinion, mixed."""
    rows = list(kept_rows(data, recipe))
    for row, opinion in zip(rows, teacher(rows), strict=True):
        soft = {label: float(label == row.label) for label in LABELS}
        if not np.isnan(opinion).any():
            share = recipe.teacher_share
            soft = {name: (1 - share) * soft[name] + share * float(p) for name, p in zip(LABELS, opinion, strict=True)}
        yield row, _unsure(soft, recipe) if row.source in TWO_CLASSES else soft


def _unsure(soft: Soft, recipe: Recipe) -> Soft:
    """Neutral gets some where positive and negative are close: sets of two classes hold no neutral texts."""
    moved = recipe.unsure_share * (1 - abs(soft["positive"] - soft["negative"]))
    return {name: p * (1 - moved) + (moved if name == "neutral" else 0.0) for name, p in soft.items()}


def _drawn(recipe: Recipe) -> Iterator[tuple[Labelled, Soft]]:
    """Sentences of the little world and hard ones, a little less than certain."""
    plain = world.labelled_sentences(recipe.world_sentences, seed=recipe.seed + 1)
    hard = contrast.sentences(recipe.contrast_sentences, recipe.seed + 7)
    rows = chain(
        (Labelled(text, label, "world_sentences") for text, label in plain),
        (Labelled(text, label, "contrast") for text, label in hard),
    )
    for row in rows:
        if not corpus.is_held_out(row.text):
            yield row, _smoothed(row.label, LABELS, recipe.smoothing)


def _smoothed(label: str, labels: Sequence[str], share: float) -> Soft:
    """Almost all for `label`; `share` is spread over the others."""
    return {name: 1 - share if name == label else share / (len(labels) - 1) for name in labels}


def _with_other_focus_words(encoder: Encoder, recipe: Recipe) -> list[Encoder]:
    """The encoder, as it would be for operators with other words."""
    rng = random.Random(recipe.seed)
    task = encoder.tasks["sentiment"]
    return [
        encoder.with_task(replace(task, focus_words=tuple(rng.sample(OTHER_FOCUS_WORDS, rng.randint(0, 10)))))
        for _ in range(64)
    ]


def kept_rows(data: Path, recipe: Recipe) -> Iterator[Labelled]:
    """Train rows; in a trial only the first of every source."""
    seen: dict[str, int] = {}
    for row in corpus.sentiment_rows(data, "train"):
        seen[row.source] = seen.get(row.source, 0) + 1
        if recipe.row_cap is None or seen[row.source] <= recipe.row_cap:
            yield row


def safety_rows(data: Path, encoder: Encoder, recipe: Recipe) -> Iterator[tuple[Row, str]]:
    """Messages drawn from the phrases, and ordinary ones of the data, which are all harmless."""
    labels = [label.name for label in encoder.tasks["safety"].labels]
    for text, label, earlier in safety.messages(recipe.safety_messages, recipe.seed + 8):
        if not corpus.is_held_out(text):
            joined = "\n".join((*earlier, text))  # as the product reads turns
            wanted = _smoothed(label, labels, recipe.safety_smoothing)
            yield encoder.decision("safety", joined, wanted, limit=WINDOW_TOKENS), "safety"
    harmless = _smoothed(labels[0], labels, recipe.safety_smoothing)
    for text in _ordinary(data, encoder.tasks, recipe):
        yield encoder.decision("safety", text, harmless, limit=WINDOW_TOKENS), "ordinary"


def _ordinary(data: Path, tasks: Mapping[str, Task], recipe: Recipe) -> Iterator[str]:
    """A sample of talk, questions, reviews, windows of long texts and, half of it, personal posts.

    What the word rule meets is left out.
    """
    talks = [text for turns in support(data, tasks, recipe) for text in turns[::2]]
    asked = [text for language in ("zh", "en") for text in requests(data, language, recipe)]
    said = [text for talk in exchange_talks(recipe, seed=recipe.seed + 9) for text in talk.texts[::2]]
    rows = list(kept_rows(data, recipe))
    reviews = [row.text[:WINDOW_CHARS] for row in rows if row.source not in PERSONAL]
    posts = [row.text[:WINDOW_CHARS] for row in rows if row.source in PERSONAL]
    long_texts = [piece for text in _long_texts(data) for piece in windows(text)]
    part = recipe.ordinary_messages // 12
    sources = ((talks, part), (asked, part), (said, part), (reviews, part), (long_texts, 2 * part), (posts, 6 * part))
    for number, (texts, count) in enumerate(sources):
        yield from (text for text in sample(texts, count, recipe.seed + 10 + number) if not _is_grave(text, tasks))


def _long_texts(data: Path) -> Iterator[str]:
    """All that were written for this, and answers of the data but for those of benchmarks/safety."""
    for language, least in LONG_CHARS.items():
        yield from safety.passages(language)
        yield from filter(corpus.is_fitted_on, corpus.answers(data, language, least))


def _is_grave(text: str, tasks: Mapping[str, Task]) -> bool:
    return any(pattern.search(text) for pattern in danger_patterns(tasks))
