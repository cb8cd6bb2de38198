"""A matrix with an optional bias, in fp32 or int8. Only this file multiplies in int8.

int8 keeps one scale for each row of the weights and computes one for each row (token) of the input,
so that a token's product is the same in any batch. fbgemm multiplies, through torch's operators.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from qwen_aio.core import Precision
from qwen_aio.engine.weights.model_weights import SMALLEST, Array, Fp32Array, Int8Matrix

# Levels of activations on either side of zero. On AVX2, fbgemm adds pairs of products in 16 bits,
# which 2 * 127 * 127 just fits; processors with VNNI add in 32 bits.
NARROW_LEVELS, WIDE_LEVELS = 63, 127

Embedding = Callable[[Tensor], Tensor]  # ids (n,) -> their rows (n, hidden), a new tensor


class Linear(Protocol):
    """y = x W^T + b."""

    def __call__(self, x: Tensor) -> Tensor: ...  # (n, in) -> (n, out), a new tensor
    def product(self, x: Tensor) -> Tensor: ...  # the same without bias; int8 takes x in -1 .. 1
    def add_to(self, residual: Tensor, x: Tensor) -> Tensor: ...  # the product, added in place


class Fp32Linear:
    """The product in fp32."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self.weight = weight
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight, self._bias)

    def add_to(self, residual: Tensor, x: Tensor) -> Tensor:
        return residual.addmm_(x, self.weight.t())

    def product(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight)


class Int8Linear:
    """The product in int8, summed in integers."""

    def __init__(self, matrix: Int8Matrix, bias: Tensor | None = None, *, levels: int | None = None) -> None:
        """`levels` of the activations; by default, as many as this processor sums exactly."""
        self._packed = _packed(matrix)
        self._bias = bias
        self._two_pass = matrix.two_pass
        self._levels = levels or activation_levels()
        self._multiply = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32.default

    def __call__(self, x: Tensor) -> Tensor:
        most = row_max(x)
        y = self.product(x / most)
        return y.mul_(most) if self._bias is None else torch.addcmul(self._bias, y, most, out=y)

    def add_to(self, residual: Tensor, x: Tensor) -> Tensor:
        most = row_max(x)
        return residual.addcmul_(self.product(x / most), most)

    def product(self, x: Tensor) -> Tensor:
        if not self._two_pass:
            return self._quantised(x)
        first = (x * self._levels).round_().div_(self._levels)
        rest = (x - first).mul_(2 * self._levels)  # in -1 .. 1, too
        y, y_rest = self._quantised(torch.cat((first, rest))).chunk(2)
        return y.add_(y_rest, alpha=1 / (2 * self._levels))

    def _quantised(self, x: Tensor) -> Tensor:
        """`x`, rounded to levels, times the weights."""
        y: Tensor = self._multiply(x, 1 / self._levels, self._levels + 1, self._packed)
        return y


class Fp32Embedding:
    """Rows kept in fp32."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight

    def __call__(self, ids: Tensor) -> Tensor:
        return self.weight[ids]


class Int8Embedding:
    """Rows kept in int8."""

    def __init__(self, matrix: Int8Matrix) -> None:
        self._values, self._scales = tensor_of(matrix.values), tensor_of(matrix.scales)

    def __call__(self, ids: Tensor) -> Tensor:
        return self._values[ids] * self._scales[ids].unsqueeze(1)


def linear_of(matrix: Fp32Array | Int8Matrix, bias: Fp32Array | None = None) -> Linear:
    """The product with this matrix."""
    offset = None if bias is None else tensor_of(bias)
    return Int8Linear(matrix, offset) if isinstance(matrix, Int8Matrix) else Fp32Linear(tensor_of(matrix), offset)


def embedding_of(matrix: Fp32Array | Int8Matrix) -> Embedding:
    """The embedding with these rows."""
    return Int8Embedding(matrix) if isinstance(matrix, Int8Matrix) else Fp32Embedding(tensor_of(matrix))


def tensor_of(array: Array) -> Tensor:
    """The same memory as torch sees it; never written to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(np.ascontiguousarray(array))


def why_no_fbgemm() -> str | None:
    """Why int8 products are unavailable here; None where they are available."""
    if "fbgemm" not in torch.backends.quantized.supported_engines:
        return "this processor or this torch has no fbgemm (it takes AVX2)"
    try:
        is_right = _sums_exactly(NARROW_LEVELS)
    except (RuntimeError, AttributeError, NotImplementedError) as exc:
        return f"this torch lacks the int8 operators: {exc}"
    return None if is_right else "the int8 product of this machine gives wrong numbers"


@cache
def activation_levels() -> int:
    """The levels that this processor sums exactly, tested at the extremes."""
    return WIDE_LEVELS if _sums_exactly(WIDE_LEVELS) else NARROW_LEVELS


def arithmetic(precision: Precision) -> str:
    """How numbers of `precision` come about on this processor: int8 in fewer levels gives others."""
    is_narrow = precision == "int8" and activation_levels() == NARROW_LEVELS
    return f"int8 in {NARROW_LEVELS} levels" if is_narrow else precision


def _sums_exactly(levels: int) -> bool:
    """True if the largest products are right: of equal, alternating and opposite signs."""
    sign = torch.tensor([1.0, -1.0]).repeat(64)
    weight = torch.stack((torch.ones(128), sign, -torch.ones(128)))
    x = torch.stack((torch.ones(128), sign, -sign))
    found = Int8Linear(Int8Matrix.of(weight.numpy()), levels=levels)(x)
    return torch.allclose(found, x @ weight.t(), rtol=1e-4, atol=1e-3)


def row_max(x: Tensor) -> Tensor:
    """The largest magnitude of each row, (n, 1)."""
    return x.abs().amax(1, keepdim=True).clamp_min_(SMALLEST)


def _packed(matrix: Int8Matrix) -> torch.ScriptObject:
    """`matrix` in fbgemm's layout."""
    torch.backends.quantized.engine = "fbgemm"
    values, scales = tensor_of(matrix.values), tensor_of(matrix.scales)
    zeros = torch.zeros(len(scales), dtype=torch.long)
    with warnings.catch_warnings():  # the tensor type is deprecated, the operators are not; torch is pinned
        warnings.simplefilter("ignore", UserWarning)
        quantized = torch._empty_per_channel_affine_quantized(
            values.shape, scales=scales.double(), zero_points=zeros, axis=0, dtype=torch.qint8
        )
        # The same numbers, not a copy: it would take as much memory again.
        quantized.set_(values.untyped_storage(), values.storage_offset(), values.size(), values.stride())
        packed: torch.ScriptObject = torch.ops.quantized.linear_prepack(quantized, None)
    return packed
