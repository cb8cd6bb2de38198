"""The forward pass of Qwen2 and Qwen3, over the rows of many sequences at once.

Every matrix is multiplied once per step, with the concatenated rows of all sequences: (n, hidden).
Only attention.py knows sequences, and only linear.py number formats. building.py makes the parts.
"""

from __future__ import annotations

import math
from collections import abc
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from qwen_aio.engine.config import ModelConfig
from qwen_aio.engine.model.attention import ForwardBatch, attend, forward_batch
from qwen_aio.engine.model.linear import Embedding, Linear
from qwen_aio.engine.model.pool import KvPool
from qwen_aio.engine.scheduling.scheduler import Span


@dataclass(frozen=True, eq=False)
class Qwen2:
    """Token ids in, hidden states and logits out: the engine's ForwardModel. Arrays are tensors seen by numpy."""

    config: ModelConfig
    embedding: Embedding
    layers: abc.Sequence[Layer]
    norm: RmsNorm
    output: Linear
    rotations: Tensor  # see `rotations()`

    @property
    def token_bytes(self) -> int:
        """Memory of one cached token: its keys and values, and the cache's own objects."""
        return self.config.token_bytes

    def new_pool(self, num_slots: int) -> KvPool:
        """Memory for the keys and values of so many tokens."""
        return KvPool(self.config, num_slots)

    @torch.inference_mode()
    def forward(self, spans: abc.Sequence[Span], pool: KvPool) -> NDArray[np.float32]:
        """Final hidden states of the logit rows, (num_logit_rows, hidden). Fills the pool."""
        batch = forward_batch(spans, pool)
        x = self.embedding(batch.ids)
        rotation = self.rotations[batch.positions]  # (n, 1, head_dim / 2)
        for number, layer in enumerate(self.layers):
            x = layer(x, batch, pool, number=number, rotation=rotation)
        return self.norm(x[batch.logit_rows]).numpy()

    @torch.inference_mode()
    def logits(self, hidden: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, hidden) -> (n, vocab), a new array."""
        return self.output(torch.from_numpy(hidden)).numpy()


@dataclass(frozen=True, eq=False)
class Layer:
    """x + attention(norm(x)), then x + mlp(norm(x)); works in place."""

    config: ModelConfig
    attention_norm: RmsNorm
    qkv: Linear  # one matrix: [q | k | v]
    qk_norm: RmsNorm | None  # of every head of q and k
    attention_output: Linear
    mlp_norm: RmsNorm
    gate_up: Linear  # one matrix: [gate | up]
    down: Linear

    def __call__(self, x: Tensor, batch: ForwardBatch, pool: KvPool, *, number: int, rotation: Tensor) -> Tensor:
        x = self.attention_output.add_to(x, self._attention(x, batch, pool, layer=number, rotation=rotation))
        return self.down.add_to(x, self._swiglu(x))

    def _attention(self, x: Tensor, batch: ForwardBatch, pool: KvPool, *, layer: int, rotation: Tensor) -> Tensor:
        """Grouped-query attention with rotary positions, (n, heads * head_dim)."""
        num_heads, num_all = self.config.num_heads, self.config.num_heads + 2 * self.config.num_kv_heads
        num_rotated = num_all - self.config.num_kv_heads  # q and k carry positions, v does not
        qkv = self.qkv(self.attention_norm(x)).view(len(x), num_all, -1)
        if self.qk_norm is not None:
            qkv[:, :num_rotated] = self.qk_norm(qkv[:, :num_rotated])
        # The numbers of a rotary pair are neighbours (`paired` in weights/model_weights.py): a complex product rotates.
        pairs = torch.view_as_complex(qkv.view(len(x), num_all, -1, 2))
        pairs[:, :num_rotated].mul_(rotation)
        return attend(qkv, batch, pool, layer=layer, num_heads=num_heads)

    def _swiglu(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(self.mlp_norm(x)).chunk(2, dim=-1)
        return functional.silu(gate).mul_(up)


class RmsNorm:
    """x / sqrt(mean(x^2) + eps) over the last dimension, times `weight`.

    As x / sqrt(|x|^2 + d eps), times sqrt(d): four operators, where torch's rms_norm takes eight.
    """

    def __init__(self, weight: Tensor, eps: float) -> None:
        dim = weight.shape[-1]
        self._weight = weight * math.sqrt(dim)
        self._eps = torch.tensor(math.sqrt(dim * eps))

    def __call__(self, x: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return (x / torch.hypot(length, self._eps)).mul_(self._weight)


def rotations(config: ModelConfig, num_positions: int) -> Tensor:
    """exp(i * angle) of every rotary pair: (num_positions, 1, head_dim / 2), complex."""
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    angles = torch.outer(torch.arange(num_positions, dtype=torch.float32), 1.0 / config.rope_theta**exponents)
    return torch.polar(torch.ones_like(angles), angles).unsqueeze(1)
