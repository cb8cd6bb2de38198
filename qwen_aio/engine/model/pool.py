"""The memory of keys and values: one slot for each token, in every layer.

kv/radix_cache.py decides which slot holds which token.
"""

from __future__ import annotations

from collections import abc
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from qwen_aio.engine.config import ModelConfig
from qwen_aio.engine.kv.lazy_memory import lazy_zeros
from qwen_aio.engine.kv.radix_cache import SlotRuns


class KvPool:
    """Keys, then values, of all layers: (layers, 2 * kv_heads, slots, head_dim)."""

    def __init__(self, config: ModelConfig, num_slots: int) -> None:
        shape = (config.num_layers, 2 * config.num_kv_heads, num_slots, config.head_dim)
        self._all = torch.frombuffer(lazy_zeros(4 * prod(shape)), dtype=torch.float32).view(shape)
        self._layers = self._all.transpose(1, 2).unbind(0)  # (slots, 2 * kv_heads, head_dim) each
        self._num_kv_heads = config.num_kv_heads

    def write(self, layer: int, slots: Tensor, keys_values: Tensor) -> None:
        """Store keys and values of n rows, (n, 2 * kv_heads, head_dim), in `slots` (n,)."""
        self._layers[layer].index_copy_(0, slots, keys_values)

    def extent(self, runs: SlotRuns) -> Extent:
        """Keys and values of these slots in every layer: views of one run, copies of several."""
        if len(runs) > 1:
            slots = torch.tensor([slot for run in runs for slot in run])
            return GatheredExtent(self._layers, slots, self._num_kv_heads)
        [run] = runs
        part = self._all[:, None, :, run.start : run.stop]
        return ContiguousExtent(part[:, :, : self._num_kv_heads].unbind(0), part[:, :, self._num_kv_heads :].unbind(0))


@dataclass(frozen=True, eq=False)
class ContiguousExtent:
    """Neighbouring slots, read in place."""

    keys: abc.Sequence[Tensor]
    values: abc.Sequence[Tensor]

    def of(self, layer: int) -> tuple[Tensor, Tensor]:
        """(1, kv_heads, length, head_dim) each"""
        return self.keys[layer], self.values[layer]


@dataclass(frozen=True, eq=False)
class GatheredExtent:
    """Scattered slots, copied together for each layer that reads them."""

    layers: abc.Sequence[Tensor]
    slots: Tensor
    num_kv_heads: int

    def of(self, layer: int) -> tuple[Tensor, Tensor]:
        both = self.layers[layer].index_select(0, self.slots).transpose(0, 1).unsqueeze(0)
        return both[:, : self.num_kv_heads], both[:, self.num_kv_heads :]


Extent = ContiguousExtent | GatheredExtent  # keys and values that rows attend to at once
