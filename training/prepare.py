"""Everything a run learns from, made once and kept in the work folder: vocabulary, encoded rows, plan.

Knows all sources and how much of each is taken; encoding and batching are next door.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import chain
from pathlib import Path

from tqdm import tqdm  # type: ignore[import-untyped]  # tqdm ships no types

from qwen_aio.core import Task
from training import contrast, safety, world
from training.batches import Head
from training.decisions import LABELS, Teacher, kept_rows, reworded_rows, safety_rows, sentiment_rows
from training.recipe import TASKS, Recipe
from training.rows import Encoder, Row, Rows
from training.talks import conversations, exchange_talks, requests, summaries, support
from training.teacher import kept_opinions
from training.tokenizer import train_tokenizer

ANCHOR_REPEATS = 20_000  # makes the phrases of the prompts single tokens


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


def take_vocabulary(work: Path, model: Path) -> None:
    """Make the vocabulary of an exported model that of the run, unless `work` has one."""
    path = work / "tokenizer.json"
    if not path.exists():
        _write_whole(path, lambda partial: partial.write_bytes((model / "tokenizer.json").read_bytes()))


def rows(work: Path, data: Path, encoder: Encoder, recipe: Recipe) -> dict[str, Rows]:
    """Rows of every task; only what `work` does not hold is encoded."""
    teacher = partial(kept_opinions, work / "opinions.npy", labels=LABELS, seed=recipe.seed)
    paths = {task: work / f"{task}.npz" for task in encoder.tasks}
    for task, made in all_rows(data, encoder, recipe, teacher=teacher).items():
        if not paths[task].exists():
            counted = tqdm(made, desc=f"encoding {task}", unit="row", mininterval=5)
            _write_whole(paths[task], Rows.collect(counted).save)
    return {task: Rows.load(path) for task, path in paths.items()}


def _write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """A run killed while writing leaves no half file behind."""
    partial = path.with_suffix(".partial")
    write(partial)
    partial.replace(path)


def vocabulary(data: Path, tasks: Mapping[str, Task], recipe: Recipe) -> str:
    """Content of tokenizer.json, learned from the train rows, the world and the prompts."""
    sentiment = (row.text for row in kept_rows(data, recipe) for _ in range(2 if row.text.isascii() else 1))
    dialogues = world.dialogues(recipe.world_dialogues // 10, seed=recipe.seed)
    spoken = (text for dialogue in dialogues for _, text in dialogue.turns)
    exchanged = (text for talk in exchange_talks(recipe, seed=recipe.seed) for text in talk.texts)
    graver = (text for text, _, _ in safety.messages(recipe.safety_messages // 2, recipe.seed + 8))
    hard = (text for text, _ in contrast.sentences(recipe.contrast_sentences, recipe.seed + 7))
    supporting = (text for turns in support(data, tasks, recipe) for text in turns)
    asked = (text for language in ("zh", "en") for text in requests(data, language, recipe))
    labels = [label.text for task in tasks.values() for label in task.labels]
    anchors = [*labels, "【情感】:", "【安全】:", "user\n", "assistant\n"]
    heads = [part for task in tasks.values() for part in re.split(r"\{[{%].*?[%}]\}", task.template)] * 50
    texts = chain(sentiment, spoken, exchanged, graver, hard, supporting, asked, anchors * ANCHOR_REPEATS, heads)
    return train_tokenizer(texts, vocab_size=recipe.shape.vocab_size)


def all_rows(data: Path, encoder: Encoder, recipe: Recipe, *, teacher: Teacher) -> dict[str, Iterator[tuple[Row, str]]]:
    """Rows of every task and of every wording of the sentiment task, by name, each encoded when it is asked for."""
    return {
        "sentiment": sentiment_rows(data, encoder, recipe, teacher),
        "safety": safety_rows(data, encoder, recipe),
        "chat": conversations(data, encoder, recipe),
        "summarize": summaries(encoder, recipe),
        **{name: reworded_rows(data, encoder, recipe, teacher, name) for name in encoder.tasks if name not in TASKS},
    }


def heads(encoder: Encoder) -> dict[str, Head]:
    """What the rows of each task share. Every label begins with a token of its own."""
    return {
        name: Head(encoder.head(task), [ids[0] for ids in encoder.label_ids(task)])
        for name, task in encoder.tasks.items()
    }
