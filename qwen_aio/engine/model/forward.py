"""The forward pass of Qwen2, over the rows of many sequences at once.

Every matrix is multiplied once per step, with the rows of all sequences under one another: (n, hidden). Only
attention knows that rows belong to sequences; linear.py knows number formats. weights.py makes the parts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence as Series
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from qwen_aio.engine.config import ModelConfig
from qwen_aio.engine.kv.pool import KvPool
from qwen_aio.engine.model.attention import ForwardBatch, attend
from qwen_aio.engine.model.linear import Embedding, Linear


@dataclass(frozen=True, eq=False)
class Qwen2:
    """Token ids in, hidden states and logits out."""

    config: ModelConfig
    embedding: Embedding
    layers: Series[Layer]
    norm: RmsNorm
    output: Linear
    rotations: Tensor  # of every position, see `rotations()`

    def forward(self, rows: ForwardBatch, memory: KvPool) -> Tensor:
        """Final hidden states of the wanted rows: (num_wanted, hidden). Keys and values of all rows go to memory."""
        x = self.embedding(rows.ids)
        turn = self.rotations[rows.positions]  # (n, 1, head_dim / 2)
        for number, layer in enumerate(self.layers):
            x = layer(x, rows, memory, number=number, turn=turn)
        return self.norm(x[rows.wanted])

    def logits(self, hidden: Tensor) -> Tensor:
        """(n, hidden) -> (n, vocab)"""
        return self.output(hidden)


@dataclass(frozen=True, eq=False)
class Layer:
    """x + attention(norm(x)), then x + mlp(norm(x)); writes to the x it is given."""

    attention_norm: RmsNorm
    attention: Attention
    mlp_norm: RmsNorm
    mlp: Mlp

    def __call__(self, x: Tensor, rows: ForwardBatch, memory: KvPool, *, number: int, turn: Tensor) -> Tensor:
        x = self.attention.add_to(x, self.attention_norm(x), rows, memory, layer=number, turn=turn)
        return self.mlp.add_to(x, self.mlp_norm(x))


@dataclass(frozen=True, eq=False)
class Attention:
    """Grouped-query attention with rotary positions. The matrices of q, k and v are one: [q | k | v].

    A pair that turns together stands side by side (see `paired`), so that turning is one complex product.
    """

    config: ModelConfig
    qkv: Linear
    output: Linear

    def add_to(
        self, residual: Tensor, x: Tensor, rows: ForwardBatch, memory: KvPool, *, layer: int, turn: Tensor
    ) -> Tensor:
        num_heads, num_all = self.config.num_heads, self.config.num_heads + 2 * self.config.num_kv_heads
        qkv = self.qkv(x).view(len(x), num_all, -1)
        pairs = torch.view_as_complex(qkv.view(len(x), num_all, -1, 2))
        pairs[:, : num_heads + self.config.num_kv_heads].mul_(turn)  # q and k carry positions, v does not
        return self.output.add_to(residual, attend(qkv, rows, memory, layer=layer, num_heads=num_heads))


@dataclass(frozen=True, eq=False)
class Mlp:
    """SwiGLU. The matrices of gate and up are one: [gate | up]."""

    gate_up: Linear
    down: Linear

    def add_to(self, residual: Tensor, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down.add_to(residual, functional.silu(gate).mul_(up))


class RmsNorm:
    """x / sqrt(mean(x^2) + eps), scaled by feature.

    Computed as x / sqrt(|x|^2 + d eps), times sqrt(d): four operators, where torch's own rms_norm is made of eight.
    """

    def __init__(self, weight: Tensor, eps: float) -> None:
        self._weight = weight * math.sqrt(len(weight))
        self._eps = torch.tensor(math.sqrt(len(weight) * eps))

    def __call__(self, x: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=1, keepdim=True)
        return (x / torch.hypot(length, self._eps)).mul_(self._weight)


def rotations(config: ModelConfig, num_positions: int) -> Tensor:
    """exp(i * angle) for every pair of a head at every position: (num_positions, 1, head_dim / 2), complex."""
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    angles = torch.outer(torch.arange(num_positions, dtype=torch.float32), 1.0 / config.rope_theta**exponents)
    return torch.polar(torch.ones_like(angles), angles).unsqueeze(1)


def paired(rows: Tensor, *, head_dim: int) -> Tensor:
    """Rows of q or k (of a weight or a bias), reordered within each head: 0, d/2, 1, d/2 + 1, ...

    Qwen2 turns the pairs (i, i + d/2). What q and k are multiplied with is the same for both, so their product stays.
    """
    return rows.view(-1, 2, head_dim // 2, *rows.shape[1:]).transpose(1, 2).reshape(rows.shape)
