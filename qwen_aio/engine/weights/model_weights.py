"""All weights of a model in any precision, from any source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Fp32Array = NDArray[np.float32]
Matrix = TypeVar("Matrix", covariant=True)
Other = TypeVar("Other")

WEIGHT_LEVELS = 127
SMALLEST = 1e-30  # the divisor of a row of zeros
VECTORS = ("attention_norm", "qkv_bias", "qk_norm", "mlp_norm")  # of a layer; all else are matrices


@dataclass(frozen=True, eq=False)
class Int8Matrix:
    """Stored weights: int8 values (out, in), and the scale of each row, (out,).

    `two_pass`: inputs are quantised twice, the second time for the remainder of the first, which
    gives 13 bits instead of 7 or 8. For matrices whose inputs have outliers: twice the arithmetic,
    while the weights are read once.
    """

    values: NDArray[np.int8]
    scales: Fp32Array
    two_pass: bool = False

    @classmethod
    def of(cls, weight: Fp32Array, *, two_pass: bool = False) -> Int8Matrix:
        """The int8 matrix nearest to `weight` (out, in), each row scaled by its maximum."""
        scales = np.maximum(np.abs(weight).max(axis=1), np.float32(SMALLEST)) / np.float32(WEIGHT_LEVELS)
        return cls(np.rint(weight / scales[:, np.newaxis]).astype(np.int8), scales, two_pass)

    def __getitem__(self, rows: slice | NDArray[np.integer[Any]]) -> Int8Matrix:
        """The matrix of these rows."""
        return replace(self, values=self.values[rows], scales=self.scales[rows])

    def dense(self) -> Fp32Array:
        """(out, in) in fp32."""
        return self.values * self.scales[:, np.newaxis]


@dataclass(frozen=True, eq=False)
class LayerWeights(Generic[Matrix]):
    """One layer as a forward pass takes it: merged, q and k paired. Matrix: an array or an Int8Matrix."""

    attention_norm: Fp32Array
    qkv: Matrix
    qkv_bias: Fp32Array | None
    qk_norm: Fp32Array | None  # (heads + kv heads, head_dim)
    attention_output: Matrix
    mlp_norm: Fp32Array
    gate_up: Matrix
    down: Matrix

    def converted(self, convert: Callable[[Matrix], Other]) -> LayerWeights[Other]:
        """The same layer, every matrix converted."""
        matrices: dict[str, Any] = {name: convert(part) for name, part in vars(self).items() if name not in VECTORS}
        return LayerWeights(**{**vars(self), **matrices})


class WeightsOf(Protocol[Matrix]):
    """A source of weights. Layers are read in order, from the first on.

    A small embedding is in fp32 even where the layers are not: it costs little, and a small
    model depends on its precision. A large one is in int8, also beside layers in int4.
    """

    def embedding(self) -> Fp32Array | Int8Matrix: ...  # (vocab, hidden)
    def output(self) -> Fp32Array | Int8Matrix: ...  # (vocab, hidden); of a tied model, the embedding
    def norm(self) -> Fp32Array: ...  # the last norm's weight, (hidden,)
    def layer(self, number: int) -> LayerWeights[Matrix]: ...


ModelWeights = WeightsOf[Fp32Array | Int8Matrix]  # what torch computes, too


def paired(rows: Array, *, head_dim: int) -> Array:
    """Rows of q or k (of a weight, a bias or a norm), reordered within each head: 0, d/2, 1, d/2 + 1, ...

    Qwen rotates the pairs (i, i + d/2). q and k are reordered alike, so their product is the same.
    """
    heads = rows.reshape(-1, 2, head_dim // 2, *rows.shape[1:])
    return np.ascontiguousarray(heads.swapaxes(1, 2)).reshape(rows.shape)
