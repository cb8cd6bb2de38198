"""The forward pass in numpy, a sequence and a head at a time: what native/ is compared with.

Matrices are as in a checkpoint, (out, in). Everything is computed in fp64 but what a kernel rounds on purpose:
inputs of int8 and int4 products, keys and values in fp16.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qwen_aio.engine.config import ModelConfig
from qwen_aio.engine.native.bindings import GROUP
from qwen_aio.engine.native.int4_matrix import INT4_LEVELS, Int4Matrix

Array = NDArray[np.float64]
LEVELS = 127  # of int8 weights, and of inputs in bytes, on either side of zero
FINE = 254  # parts of a level that a second pass distinguishes
MOST_HALF = 65504.0


def input_levels(kernel: str, num_inputs: int, *, in_groups: bool = False) -> int:
    """How finely a kernel rounds the inputs of an int8 or int4 product, on either side of zero."""
    if kernel == "avx2":  # inputs of two bytes, as large as sums in 32 bits allow
        return 2**15 - 1 if in_groups else min(2**15 - 1, (2**31 - 1) // (LEVELS * num_inputs))
    return LEVELS


def takes_two_passes(kernel: str) -> bool:
    """Inputs of two bytes need no second pass."""
    return kernel != "avx2"


@dataclass(frozen=True, eq=False)
class ReferenceMatrix:
    """y = x W^T, with W in fp32, or in int8 with a scale of each row, or in int4 with a factor of each group besides."""

    values: NDArray[np.float32] | NDArray[np.int8] | NDArray[np.uint8]  # (out, in)
    scales: NDArray[np.float32] | None = None  # (out,)
    two_pass: bool = False
    factors: NDArray[np.int8] | None = None  # (out, groups)

    @classmethod
    def quantised(cls, weight: NDArray[np.float32], *, two_pass: bool) -> ReferenceMatrix:
        scales = np.maximum(np.abs(weight).max(axis=1), np.float32(1e-12)) / np.float32(LEVELS)
        return cls(np.rint(weight / scales[:, None]).astype(np.int8), scales, two_pass)

    @classmethod
    def in_int4(cls, weight: NDArray[np.float32], *, two_pass: bool) -> ReferenceMatrix:
        matrix = Int4Matrix.of(weight)
        return cls(matrix.values, matrix.scales, two_pass, matrix.factors)

    def dense(self) -> Array:
        weight = self.values.astype(np.float64)
        if self.factors is not None:
            factors = np.repeat(self.factors, GROUP, axis=1)[:, : weight.shape[1]]
            weight = factors * INT4_LEVELS[self.values].astype(np.float64)
        return weight if self.scales is None else weight * self.scales[:, None]

    def product(self, x: Array, kernel: str) -> Array:
        """(rows, in) -> (rows, out)"""
        if self.scales is None:
            return x @ self.dense().T
        return self._rounded(x, kernel) @ self.dense().T

    def _rounded(self, x: Array, kernel: str) -> Array:
        """The inputs as the kernel takes them."""
        levels = input_levels(kernel, x.shape[1], in_groups=self.factors is not None)
        steps = np.abs(x).max(axis=1, keepdims=True) / levels
        exact = np.divide(x, steps, out=np.zeros_like(x), where=steps > 0)
        level = np.rint(exact)
        if self.two_pass and takes_two_passes(kernel):
            level += np.rint((exact - level) * FINE) / FINE
        return level * steps


@dataclass(frozen=True, eq=False)
class ReferenceLayer:
    attention_norm: NDArray[np.float32]
    qkv: ReferenceMatrix  # heads of queries, of keys, of values
    qkv_bias: NDArray[np.float32] | None
    query_norm: NDArray[np.float32] | None
    key_norm: NDArray[np.float32] | None
    attention_output: ReferenceMatrix
    mlp_norm: NDArray[np.float32]
    gate_up: ReferenceMatrix  # all of gate, all of up
    down: ReferenceMatrix


@dataclass(frozen=True, eq=False)
class ReferenceModel:
    config: ModelConfig
    embedding: ReferenceMatrix
    output: ReferenceMatrix
    norm: NDArray[np.float32]
    layers: tuple[ReferenceLayer, ...]

    @property
    def is_quantised(self) -> bool:
        return self.output.scales is not None

    def states(self, ids: list[int], kernel: str) -> Array:
        """Final states of every token of a sequence, (len(ids), hidden)."""
        x = self.embedding.dense()[ids]
        for layer in self.layers:
            x = x + self._attention(layer, x, kernel)
            x = x + self._mlp(layer, x, kernel)
        return self._normed(x, self.norm)

    def logits(self, states: Array, kernel: str) -> Array:
        return self.output.product(states, kernel)

    def _attention(self, layer: ReferenceLayer, x: Array, kernel: str) -> Array:
        config, rows = self.config, len(x)
        qkv = layer.qkv.product(self._normed(x, layer.attention_norm), kernel)
        if layer.qkv_bias is not None:
            qkv = qkv + layer.qkv_bias
        heads = qkv.reshape(rows, -1, config.head_dim)
        queries, keys, values = np.split(heads, [config.num_heads, config.num_heads + config.num_kv_heads], axis=1)
        queries = self._turned(queries, layer.query_norm)
        keys, values = self._kept(self._turned(keys, layer.key_norm)), self._kept(values)
        attended, is_visible = np.empty_like(queries), np.tri(rows, dtype=bool)
        for head in range(config.num_heads):
            kv_head = head // (config.num_heads // config.num_kv_heads)
            scores = np.where(is_visible, queries[:, head] @ keys[:, kv_head].T / np.sqrt(config.head_dim), -np.inf)
            weights = np.exp(scores - scores.max(axis=1, keepdims=True))
            attended[:, head] = weights @ values[:, kv_head] / weights.sum(axis=1, keepdims=True)
        return layer.attention_output.product(attended.reshape(rows, -1), kernel)

    def _mlp(self, layer: ReferenceLayer, x: Array, kernel: str) -> Array:
        gate, up = np.split(layer.gate_up.product(self._normed(x, layer.mlp_norm), kernel), 2, axis=1)
        return layer.down.product(gate / (1 + np.exp(-gate)) * up, kernel)

    def _normed(self, x: Array, weight: NDArray[np.float32]) -> Array:
        return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + self.config.rms_norm_eps) * weight

    def _turned(self, heads: Array, norm: NDArray[np.float32] | None) -> Array:
        """(rows, heads, head_dim) at their positions; pairs are i and i + head_dim / 2."""
        if norm is not None:
            heads = self._normed(heads, norm)
        size = self.config.head_dim
        exponents = np.arange(0, size, 2, dtype=np.float32) / np.float32(size)
        frequencies = np.float32(1) / np.float32(self.config.rope_theta) ** exponents
        angles = np.outer(np.arange(len(heads), dtype=np.float32), frequencies)[
            :, None
        ]  # in fp32, as models are trained
        cosines, sines = np.cos(angles.astype(np.float64)), np.sin(angles.astype(np.float64))
        first, second = np.split(heads, 2, axis=-1)
        return np.concatenate((first * cosines - second * sines, second * cosines + first * sines), axis=-1)

    def _kept(self, numbers: Array) -> Array:
        """As the pool holds them."""
        if not self.is_quantised:
            return numbers
        return numbers.clip(-MOST_HALF, MOST_HALF).astype(np.float16).astype(np.float64)
