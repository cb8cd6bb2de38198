"""Which rows go together, and in which order: a plan that is a function of the recipe and the rows alone.

Step n of a run is always batch n of the plan, so a resumed run sees the data an uninterrupted one sees.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.recipe import Phase, Recipe
from training.rows import Rows


@dataclass(frozen=True)
class Slot:
    """One step of the plan: rows of one task, and how far the step goes."""

    task: str
    rows: NDArray[np.int64]
    lr: float


@dataclass(frozen=True)
class Head:
    """What all rows of a task share: its system turn, and the first token of each of its labels."""

    ids: Sequence[int]
    label_ids: Sequence[int] = ()


@dataclass(frozen=True)
class Batch:
    """What one step computes. A predicted position is an index into the flattened rows."""

    head: Tensor  # (head tokens,)
    rows: Tensor  # (rows, length), padded behind
    positions: Tensor  # (predicted,)
    targets: Tensor  # (predicted,)
    is_answer: Tensor  # (predicted,) bool: the model's to say; the others are light language modelling
    ends: Tensor  # (rows,) position of each row's last token, after which a label is decided
    label_ids: Tensor  # (labels,); none where nothing is decided
    soft: Tensor  # (rows, labels), the wanted probabilities


def plan(rows: Mapping[str, Rows], recipe: Recipe) -> list[Slot]:
    """All steps of the run: phase after phase, tasks spread evenly, early passes over the data before late ones."""
    phases = range(recipe.first_phase, len(recipe.phases))
    return [slot for number in phases for slot in _phase_slots(number, rows, recipe)]


def learning_rate(step: int, total: int, phase: Phase) -> float:
    """Linear warm-up, then a cosine down to `final_lr`; `step` and `total` are those of the phase."""
    if step < phase.warmup_steps:
        return phase.peak_lr * (step + 1) / phase.warmup_steps
    done = (step - phase.warmup_steps) / max(1, total - phase.warmup_steps)
    return phase.final_lr + (phase.peak_lr - phase.final_lr) * 0.5 * (1 + math.cos(math.pi * done))


def _phase_slots(number: int, rows: Mapping[str, Rows], recipe: Recipe) -> list[Slot]:
    phase = recipe.phases[number]
    rng = np.random.default_rng((recipe.seed, number))
    placed = []
    for task in rows:
        batches = _task_batches(rows[task], phase, recipe.sort_window, rng)
        placed += [((i + rng.random()) / len(batches), task, batch) for i, batch in enumerate(batches)]
    placed.sort(key=lambda place: place[0])
    slots = [Slot(task, batch, learning_rate(i, len(placed), phase)) for i, (_, task, batch) in enumerate(placed)]
    return slots[: round(phase.taken * len(slots))]


def _task_batches(rows: Rows, phase: Phase, sort_window: int, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    order = np.concatenate(_passes(rows.repeats(phase.repeats), rng))
    lengths = rows.lengths
    batches = []
    for start in range(0, len(order), sort_window):
        window = order[start : start + sort_window]
        window = window[np.argsort(lengths[window], kind="stable")]
        cut = _cut(window, lengths, phase.batch_tokens)
        batches += [cut[i] for i in rng.permutation(len(cut))]
    return batches


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


def make_batch(slot: Slot, rows: Rows, heads: Mapping[str, Head], *, step: int, recipe: Recipe) -> Batch:
    """The tensors of a slot.

    Chance depends on the recipe's seed and the step alone.
    """
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
        head=torch.tensor(heads[slot.task].ids),
        rows=torch.from_numpy(ids),
        positions=torch.from_numpy(at_row * ids.shape[1] + at_column),
        targets=torch.from_numpy(ids[at_row, at_column + 1]),
        is_answer=torch.from_numpy(is_answer[at_row, at_column]),
        ends=torch.from_numpy(np.arange(len(lengths)) * ids.shape[1] + lengths - 1),
        label_ids=torch.tensor(heads[slot.task].label_ids, dtype=torch.long),
        soft=torch.from_numpy(rows.soft[slot.rows]),
    )
