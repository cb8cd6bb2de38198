"""Weights from any source, in any precision -> arrays in the layout of the C++ library."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from qwen_aio.engine.config import ModelConfig
from qwen_aio.engine.native.bindings import shared_library
from qwen_aio.engine.native.int4_matrix import Int4Matrix
from qwen_aio.engine.native.panels import (
    factor_panels,
    float_panels,
    gate_up_order,
    int4_panels,
    int8_panels,
    padded,
    qkv_order,
)
from qwen_aio.engine.weights.model_weights import Array, Fp32Array, Int8Matrix, LayerWeights, WeightsOf

AnyMatrix = Fp32Array | Int8Matrix | Int4Matrix


def packed(weights: WeightsOf[AnyMatrix], config: ModelConfig, *, kernel: str) -> Iterator[tuple[str, Array]]:
    """All arrays of a model for the kernel of that name, the largest first, while memory is free.

    Raises InvalidModel.
    """
    together = shared_library().qwen_aio_together(kernel.encode())
    yield from _matrix("output", weights.output(), together)
    if not config.tied:
        yield from _matrix("embedding", weights.embedding(), together)
    yield "norm", weights.norm()
    for number in range(config.num_layers):
        for name, array in _layer(weights.layer(number), config, together):
            yield f"layers.{number}.{name}", array


def _layer(layer: LayerWeights[AnyMatrix], config: ModelConfig, together: int) -> Iterator[tuple[str, Array]]:
    heads = qkv_order(config)
    yield "attention_norm", layer.attention_norm
    yield from _matrix("qkv", layer.qkv, together, order=heads)
    if layer.qkv_bias is not None:
        yield "qkv.bias", padded(layer.qkv_bias[heads])
    if layer.qk_norm is not None:
        halves = layer.qk_norm.reshape(len(layer.qk_norm), -1, 2).transpose(0, 2, 1)
        yield "query_norm", halves[0].ravel()
        yield "key_norm", halves[-1].ravel()
    yield from _matrix("attention_output", layer.attention_output, together)
    yield "mlp_norm", layer.mlp_norm
    yield from _matrix("gate_up", layer.gate_up, together, order=gate_up_order(config.intermediate_size))
    yield from _matrix("down", layer.down, together)


def _matrix(
    name: str, matrix: AnyMatrix, together: int, *, order: NDArray[np.intp] | slice = slice(None)
) -> Iterator[tuple[str, Array]]:
    if isinstance(matrix, np.ndarray):
        yield f"{name}.floats", float_panels(matrix[order])
        return
    values = matrix.values[order]
    if isinstance(matrix, Int4Matrix):
        yield f"{name}.int4s", int4_panels(values, together=together)
        yield f"{name}.factors", factor_panels(matrix.factors[order])
    else:
        yield f"{name}.int8s", int8_panels(values, together=together)
        yield f"{name}.sums", padded(values.sum(axis=1, dtype=np.int32))
    yield f"{name}.scales", padded(matrix.scales[order])
    if matrix.two_pass:
        yield f"{name}.two_pass", np.ones(1, np.int8)
