"""The forward pass of Qwen2, over the rows of many sequences at once.

Every matrix is multiplied once per step, with the rows of all sequences under one another: (n, hidden). Only
attention knows that rows belong to sequences. Plain classes holding tensors: weights.py fills them.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from qwen_aio.engine.attention import KvMemory, Rows, attend
from qwen_aio.engine.config import ModelConfig
from qwen_aio.engine.linear import Linear


class Qwen2:
    """Token ids in, hidden states and logits out."""

    def __init__(self, config: ModelConfig, *, num_positions: int) -> None:
        """`num_positions`: longest text that will ever be computed."""
        self.config = config
        self.output = Linear(config.hidden_size, config.vocab_size)
        self.embedding = self.output.weight if config.tied else torch.empty(config.vocab_size, config.hidden_size)
        self.layers = [Layer(config) for _ in range(config.num_layers)]
        self.norm = RmsNorm(config)
        self._cos, self._sin = _rotations(config, num_positions)

    def forward(self, rows: Rows, memory: KvMemory) -> Tensor:
        """Final hidden states of the wanted rows: (num_wanted, hidden). Keys and values of all rows go to memory."""
        x = self.embedding[rows.ids]
        cos, sin = self._cos[rows.positions], self._sin[rows.positions]  # (n, 1, head_dim)
        for layer, layer_memory in zip(self.layers, memory.layers, strict=True):
            x = layer(x, rows, layer_memory, cos=cos, sin=sin)
        return self.norm(x[rows.wanted])

    def logits(self, hidden: Tensor) -> Tensor:
        """(n, hidden) -> (n, vocab)"""
        return self.output(hidden)


class Layer:
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: ModelConfig) -> None:
        self.attention_norm = RmsNorm(config)
        self.attention = Attention(config)
        self.mlp_norm = RmsNorm(config)
        self.mlp = Mlp(config)

    def __call__(self, x: Tensor, rows: Rows, memory: Tensor, *, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x), rows, memory, cos=cos, sin=sin)
        return x + self.mlp(self.mlp_norm(x))


class Attention:
    """Grouped-query attention with rotary positions. The matrices of q, k and v are one: [q | k | v]."""

    def __init__(self, config: ModelConfig) -> None:
        self._num_heads, self._num_kv_heads, self._head_dim = config.num_heads, config.num_kv_heads, config.head_dim
        num_all = config.num_heads + 2 * config.num_kv_heads
        self.qkv = Linear(config.hidden_size, num_all * config.head_dim, has_bias=True)
        self.output = Linear(config.num_heads * config.head_dim, config.hidden_size)

    def __call__(self, x: Tensor, rows: Rows, memory: Tensor, *, cos: Tensor, sin: Tensor) -> Tensor:
        qkv = self.qkv(x).view(len(x), -1, self._head_dim)
        num_turned = self._num_heads + self._num_kv_heads  # q and k carry positions, v does not
        qkv[:, :num_turned] = _rotate(qkv[:, :num_turned], cos=cos, sin=sin)
        return self.output(attend(qkv, rows, memory, num_kv_heads=self._num_kv_heads))


class Mlp:
    """SwiGLU. The matrices of gate and up are one: [gate | up]."""

    def __init__(self, config: ModelConfig) -> None:
        self.gate_up = Linear(config.hidden_size, 2 * config.intermediate_size)
        self.down = Linear(config.intermediate_size, config.hidden_size)

    def __call__(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(functional.silu(gate) * up)


class RmsNorm:
    """x / sqrt(mean(x^2) + eps), scaled by feature."""

    def __init__(self, config: ModelConfig) -> None:
        self._eps = config.rms_norm_eps
        self.weight = torch.empty(config.hidden_size)

    def __call__(self, x: Tensor) -> Tensor:
        return functional.rms_norm(x, self.weight.shape, self.weight, self._eps)


def _rotations(config: ModelConfig, num_positions: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every position's angles, (num_positions, 1, head_dim): both halves turn alike."""
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    angles = torch.outer(torch.arange(num_positions, dtype=torch.float32), 1.0 / config.rope_theta**exponents)
    angles = torch.cat((angles, angles), dim=-1).unsqueeze(1)
    return angles.cos(), angles.sin()


def _rotate(x: Tensor, *, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs (i, i + d/2) of each head: (n, heads, d)."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin
