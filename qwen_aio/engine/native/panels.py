"""Weights in the layout of the C++ library: see Matrix in native/kernel.h."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qwen_aio.engine.config import ModelConfig
from qwen_aio.engine.native.bindings import GROUP, PANEL
from qwen_aio.engine.weights.model_weights import Array

HALF_PANEL = PANEL // 2


def float_panels(weight: Array) -> Array:
    """(out, in) -> (panels, in, 32); rows after the last are zeros."""
    return np.ascontiguousarray(_in_panels(weight).transpose(0, 2, 1))


def int8_panels(values: Array, *, together: int) -> Array:
    """(out, in) -> (panels, in / together, 32, together); rows after the last are zeros."""
    panels = _in_panels(values)
    steps = panels.reshape(len(panels), PANEL, -1, together)
    return np.ascontiguousarray(steps.transpose(0, 2, 1, 3))


def int4_panels(values: Array, *, together: int) -> Array:
    """(out, in), numbers of levels -> (panels, groups, 4, 32, 4), two in a byte; the last group is filled up."""
    panels = _in_panels(np.pad(values, ((0, 0), (0, -values.shape[1] % GROUP))))
    steps = panels.reshape(len(panels), PANEL, -1, 4, 2, 4 // together, together)  # of eight inputs, in halves
    halves = steps.swapaxes(-1, -2).transpose(4, 0, 2, 3, 1, 5, 6)
    return np.ascontiguousarray((halves[0] | halves[1] << 4).reshape(*halves.shape[1:5], 4))


def factor_panels(factors: Array) -> Array:
    """(out, groups) -> (panels, groups, 32); rows after the last are zeros."""
    return float_panels(factors)


def gate_up_order(intermediate_size: int) -> NDArray[np.intp]:
    """Rows of [gate | up] as the panels hold them: 16 of gate, then the same 16 of up."""
    gate = np.arange(intermediate_size).reshape(-1, 1, HALF_PANEL)
    return np.concatenate((gate, gate + intermediate_size), axis=1).ravel()


def qkv_order(config: ModelConfig) -> NDArray[np.intp]:
    """Rows of [q | k | v], q and k `paired` (weights/model_weights.py), as they were before: i, i + head_dim / 2."""
    num_all, num_paired = config.num_heads + 2 * config.num_kv_heads, config.num_heads + config.num_kv_heads
    order = np.arange(num_all * config.head_dim).reshape(num_all, -1, 2)
    paired = order[:num_paired].transpose(0, 2, 1)
    return np.concatenate((paired.ravel(), order[num_paired:].ravel()))


def padded(vector: Array) -> Array:
    """A number for each column of the panels; zeros after the last."""
    return np.pad(vector, (0, -len(vector) % PANEL))


def _in_panels(weight: Array) -> Array:
    """(out, in) -> (panels, 32, in)"""
    num_missing = -len(weight) % PANEL
    rows = np.pad(weight, ((0, num_missing), (0, 0))) if num_missing else weight
    return rows.reshape(-1, PANEL, weight.shape[1])
