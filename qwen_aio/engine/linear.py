"""One matrix with an optional bias: the only place where a number format of weights is known."""

from __future__ import annotations

from torch import Tensor, empty
from torch.nn import functional


class Linear:
    """y = x W^T + b, in fp32. The tensors are empty until weights.py fills them."""

    def __init__(self, in_features: int, out_features: int, *, has_bias: bool = False) -> None:
        self.weight = empty(out_features, in_features)
        self.bias = empty(out_features) if has_bias else None

    def __call__(self, x: Tensor) -> Tensor:
        """(n, in_features) -> (n, out_features)"""
        return functional.linear(x, self.weight, self.bias)
