"""int4 weights in groups: each is one of 16 levels, times a factor of its group, times a scale of its row.

Knows neither models nor the layout of a kernel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qwen_aio.engine.native.bindings import GROUP

# native/int4_levels.h says where they come from.
INT4_LEVELS = np.array([-127, -104, -79, -60, -45, -32, -21, -10, 0, 11, 21, 33, 46, 60, 77, 100], np.int8)
LEVEL_OF_NUMBER: NDArray[np.float32] = INT4_LEVELS.astype(np.float32)
DISTANCES = np.abs(np.arange(256, dtype=np.uint8).view(np.int8)[:, None] - LEVEL_OF_NUMBER)
NEAREST: NDArray[np.uint8] = DISTANCES.argmin(axis=1).astype(np.uint8)  # level to each whole number, by its bits
MOST_LEVEL = 127
MOST_FACTOR = 127
# Where a group's largest weight is tried, in levels: beyond the last one, the others are closer.
TRIED = (-112.0, -120.0, -127.0, -136.0, -146.0, 92.0, 100.0, 109.0)
BLOCK_ROWS = 256  # converted at once: their numbers stay in the processor's cache


@dataclass(frozen=True, eq=False)
class Int4Matrix:
    """4.25 bits a weight: scale * factor * level."""

    values: NDArray[np.uint8]  # (out, in): numbers of levels, not yet two in a byte
    factors: NDArray[np.int8]  # (out, groups of 32 inputs)
    scales: NDArray[np.float32]  # (out,)
    two_pass: bool = False

    @classmethod
    def of(cls, weight: NDArray[np.float32]) -> Int4Matrix:
        """Of finite numbers, (out, in). Near the least squared error that such a matrix can have."""
        blocks = [_converted(weight[row : row + BLOCK_ROWS]) for row in range(0, len(weight), BLOCK_ROWS)]
        values, factors, scales = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
        return cls(values[:, : weight.shape[1]], factors, scales)

    def dense(self) -> NDArray[np.float32]:
        """The weights, (out, in)."""
        steps = self.scales[:, None] * self.factors.astype(np.float32)
        return np.repeat(steps, GROUP, axis=1)[:, : self.values.shape[1]] * LEVEL_OF_NUMBER[self.values]


def _converted(weight: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.int8], NDArray[np.float32]]:
    """Values, with the last group filled up; factors; scales."""
    groups = np.pad(weight, ((0, 0), (0, -weight.shape[1] % GROUP))).reshape(len(weight), -1, GROUP)
    steps = _best_steps(groups)
    scales = np.maximum(np.abs(steps).max(axis=1) / np.float32(MOST_FACTOR), np.finfo(np.float32).tiny)
    factors = np.rint(steps / scales[:, None]).astype(np.int8)
    values = _nearest(groups, scales[:, None] * factors)
    return values.reshape(len(weight), -1), factors, scales


def _best_steps(groups: NDArray[np.float32]) -> NDArray[np.float32]:
    """What a level is worth in each group, (out, groups): of those tried, the one of least squared error."""
    at = np.abs(groups).argmax(axis=2)[:, :, None]
    largest = np.take_along_axis(groups, at, axis=2)
    shares = np.divide(groups, largest, out=np.zeros_like(groups), where=largest != 0)  # whose squares are numbers
    best, best_gain = (np.zeros(groups.shape[:2], np.float32) for _ in range(2))
    for level in TRIED:
        levels = LEVEL_OF_NUMBER[_nearest(shares, np.full_like(best, 1 / level))]
        products, squares = (np.einsum("rgi,rgi->rg", each, levels) for each in (shares, levels))
        # The step of least squares for these levels, and by how much it lessens the sum of squares.
        steps = np.divide(products, squares, out=np.zeros_like(products), where=squares > 0)
        gain = products * steps
        is_better = gain > best_gain
        best, best_gain = np.where(is_better, steps, best), np.where(is_better, gain, best_gain)
    return best * largest[:, :, 0]


def _nearest(groups: NDArray[np.float32], steps: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Numbers of the levels nearest to group / step."""
    inverses = np.divide(1, steps, out=np.zeros_like(steps), where=np.abs(steps) > np.finfo(np.float32).tiny)
    whole = np.rint(groups * inverses[:, :, None]).clip(-MOST_LEVEL, MOST_LEVEL).astype(np.int8)
    return NEAREST[whole.view(np.uint8)]
