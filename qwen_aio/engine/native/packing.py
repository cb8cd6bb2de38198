"""Weights in the layout of the C++ library (native/kernel.h), as arrays by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from qwen_aio.engine.config import ModelConfig
from qwen_aio.engine.model.linear import Int8Matrix
from qwen_aio.engine.model.weights import LayerWeights, ModelWeights
from qwen_aio.engine.native.library import PANEL, library

Array = NDArray[Any]
Arrays = Mapping[str, Array]  # "norm", "layers.0.qkv.int8s", "layers.0.qkv.scales", ...
HALF_PANEL = PANEL // 2


def packed(weights: ModelWeights, config: ModelConfig, *, kernel: str) -> dict[str, Array]:
    """All arrays of a model, for the kernel of that name. Raises InvalidModel."""
    return dict(_packed(weights, config, library().qwen_aio_together(kernel.encode())))


def float_panels(weight: Array) -> Array:
    """(out, in) -> (panels, in, 32); rows after the last are zeros."""
    return np.ascontiguousarray(_in_panels(weight).transpose(0, 2, 1))


def int8_panels(values: Array, *, together: int) -> Array:
    """(out, in) -> (panels, in / together, 32, together); rows after the last are zeros."""
    panels = _in_panels(values)
    steps = panels.reshape(len(panels), PANEL, -1, together)
    return np.ascontiguousarray(steps.transpose(0, 2, 1, 3))


def gate_up_order(intermediate_size: int) -> NDArray[np.intp]:
    """Rows of [gate | up] as the panels hold them: 16 of gate, then the same 16 of up."""
    gate = np.arange(intermediate_size).reshape(-1, 1, HALF_PANEL)
    return np.concatenate((gate, gate + intermediate_size), axis=1).ravel()


def qkv_order(config: ModelConfig) -> NDArray[np.intp]:
    """Rows of [q | k | v], q and k `paired` (model/forward.py), in the checkpoint's order: i and i + head_dim / 2."""
    num_all, num_paired = config.num_heads + 2 * config.num_kv_heads, config.num_heads + config.num_kv_heads
    order = np.arange(num_all * config.head_dim).reshape(num_all, -1, 2)
    paired = order[:num_paired].transpose(0, 2, 1)
    return np.concatenate((paired.ravel(), order[num_paired:].ravel()))


def _packed(weights: ModelWeights, config: ModelConfig, together: int) -> Iterator[tuple[str, Array]]:
    """The largest first, while memory is free."""
    yield from _matrix("output", weights.output(), together)
    if not config.tied:
        yield from _matrix("embedding", weights.embedding(), together)
    yield "norm", weights.norm().numpy()
    for number in range(config.num_layers):
        for name, array in _layer(weights.layer(number), config, together):
            yield f"layers.{number}.{name}", array


def _layer(
    layer: LayerWeights[Tensor | Int8Matrix], config: ModelConfig, together: int
) -> Iterator[tuple[str, Array]]:
    heads = qkv_order(config)
    yield "attention_norm", layer.attention_norm.numpy()
    yield from _matrix("qkv", layer.qkv, together, order=heads)
    if layer.qkv_bias is not None:
        yield "qkv.bias", _padded(layer.qkv_bias.numpy()[heads])
    if layer.qk_norm is not None:
        halves = layer.qk_norm.numpy().reshape(len(layer.qk_norm), -1, 2).transpose(0, 2, 1)
        yield "query_norm", halves[0].ravel()
        yield "key_norm", halves[-1].ravel()
    yield from _matrix("attention_output", layer.attention_output, together)
    yield "mlp_norm", layer.mlp_norm.numpy()
    yield from _matrix("gate_up", layer.gate_up, together, order=gate_up_order(config.intermediate_size))
    yield from _matrix("down", layer.down, together)


def _matrix(
    name: str, matrix: Tensor | Int8Matrix, together: int, *, order: NDArray[np.intp] | slice = slice(None)
) -> Iterator[tuple[str, Array]]:
    if isinstance(matrix, Int8Matrix):
        values = matrix.values.numpy()[order]
        yield f"{name}.int8s", int8_panels(values, together=together)
        yield f"{name}.scales", _padded(matrix.scales.numpy()[order])
        yield f"{name}.sums", _padded(values.sum(axis=1, dtype=np.int32))
        if matrix.two_pass:
            yield f"{name}.two_pass", np.ones(1, np.int8)
    else:
        yield f"{name}.floats", float_panels(matrix.numpy()[order])


def _padded(vector: Array) -> Array:
    """A number for each column of the panels; zeros after the last."""
    return np.pad(vector, (0, -len(vector) % PANEL))


def _in_panels(weight: Array) -> Array:
    """(out, in) -> (panels, 32, in)"""
    num_missing = -len(weight) % PANEL
    rows = np.pad(weight, ((0, num_missing), (0, 0))) if num_missing else weight
    return rows.reshape(-1, PANEL, weight.shape[1])
