"""Which rows go together, and in which order: a plan that is a function of the recipe and the rows alone.

Step n of a run is always batch n of the plan, so a resumed run sees the data an uninterrupted one sees.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.recipe import TASKS, Recipe
from training.rows import Rows


@dataclass(frozen=True)
class Slot:
    """One batch of the plan: rows of one task."""

    task: str
    rows: NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """What one step computes. A predicted position is an index into the flattened rows."""

    head: Tensor  # (head tokens,)
    rows: Tensor  # (rows, length), padded behind
    positions: Tensor  # (predicted,)
    targets: Tensor  # (predicted,)
    is_answer: Tensor  # (predicted,) bool: the model's to say; the others are light language modelling


def plan(rows: Mapping[str, Rows], recipe: Recipe) -> list[Slot]:
    """All batches of the run, tasks spread evenly over it, early passes over the data before late ones."""
    rng = np.random.default_rng(recipe.seed)
    placed = []
    for task in TASKS:
        slots = _task_slots(task, rows[task], recipe, rng)
        placed += [((i + rng.random()) / len(slots), slot) for i, slot in enumerate(slots)]
    return [slot for _, slot in sorted(placed, key=lambda pair: pair[0])]


def _task_slots(task: str, rows: Rows, recipe: Recipe, rng: np.random.Generator) -> list[Slot]:
    order = np.concatenate(_passes(rows.repeats, rng))
    lengths = rows.lengths
    slots = []
    for start in range(0, len(order), recipe.sort_window):
        window = order[start : start + recipe.sort_window]
        window = window[np.argsort(lengths[window], kind="stable")]
        cut = _cut(window, lengths, recipe.batch_tokens)
        slots += [Slot(task, cut[i]) for i in rng.permutation(len(cut))]
    return slots


def _passes(repeats: NDArray[np.float64], rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """Pass k takes the rows that are seen more than k times; of a fraction, that share of the rows."""
    passes = []
    for number in range(int(np.ceil(repeats.max()))):
        chance = np.clip(repeats - number, 0, 1)
        passes.append(rng.permutation(np.flatnonzero(rng.random(len(repeats)) < chance)))
    return passes


def _cut(window: NDArray[np.int64], lengths: NDArray[np.int64], budget: int) -> list[NDArray[np.int64]]:
    """Runs of `window` (sorted by length) that fill at most `budget` tokens, padding counted; never an empty one."""
    cuts = []
    start = 0
    for end in range(1, len(window) + 1):
        is_full = end < len(window) and (end + 1 - start) * lengths[window[end]] > budget
        if is_full or end == len(window):
            cuts.append(window[start:end])
            start = end
    return cuts


class Heads:
    """System heads of a task's batches: mostly its own, now and then one of its variations."""

    def __init__(self, own: Mapping[str, Sequence[int]], variations: Sequence[Sequence[int]], recipe: Recipe) -> None:
        self._own = own
        self._variations = variations
        self._share = recipe.other_focus_share

    def choose(self, task: str, rng: np.random.Generator) -> Sequence[int]:
        if task == "sentiment" and self._variations and rng.random() < self._share:
            return self._variations[int(rng.integers(len(self._variations)))]
        return self._own[task]


def make_batch(slot: Slot, rows: Rows, heads: Heads, *, step: int, recipe: Recipe) -> Batch:
    """The tensors of a slot. Chance depends on the recipe's seed and the step alone."""
    rng = np.random.default_rng((recipe.seed, step))
    lengths = rows.lengths[slot.rows]
    ids = np.zeros((len(slot.rows), lengths.max()), dtype=np.int64)
    answer = np.zeros(ids.shape, dtype=np.bool_)
    for at, row in enumerate(slot.rows):
        start, end = rows.offsets[row], rows.offsets[row + 1]
        ids[at, : end - start] = rows.ids[start:end]
        answer[at, : end - start] = rows.answer[start:end]
    # Position i predicts i + 1, so the last column predicts nothing.
    is_answer = answer[:, 1:]
    exists = np.arange(1, ids.shape[1]) < lengths[:, None]
    wanted = exists & (is_answer | (rng.random(is_answer.shape) < recipe.lm_share))
    at_row, at_column = np.nonzero(wanted)
    return Batch(
        head=torch.tensor(heads.choose(slot.task, rng)),
        rows=torch.from_numpy(ids),
        positions=torch.from_numpy(at_row * ids.shape[1] + at_column),
        targets=torch.from_numpy(ids[at_row, at_column + 1]),
        is_answer=torch.from_numpy(is_answer[at_row, at_column]),
    )
