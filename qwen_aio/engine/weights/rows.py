"""Weights kept row by row, as torch takes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from qwen_aio.engine.config import ModelConfig
from qwen_aio.engine.weights.model_weights import Array, Fp32Array, Int8Matrix, LayerWeights, ModelWeights


def rows(weights: ModelWeights, config: ModelConfig) -> Iterator[tuple[str, Array]]:
    """All arrays of a model, the largest first, while memory is free."""
    yield from _arrays("embedding", weights.embedding())
    if not config.tied:
        yield from _arrays("output", weights.output())
    yield "norm", weights.norm()
    for number in range(config.num_layers):
        for name, part in vars(weights.layer(number)).items():
            if part is not None:  # architectures differ
                yield from _arrays(f"layers.{number}.{name}", part)


class RowWeights:
    """The weights that `rows` took apart (ModelWeights)."""

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self._arrays = arrays

    def embedding(self) -> Fp32Array | Int8Matrix:
        return self._part("embedding")

    def output(self) -> Fp32Array | Int8Matrix:
        return self.embedding() if (untied := self._part_if_any("output")) is None else untied

    def norm(self) -> Fp32Array:
        return self._arrays["norm"]

    def layer(self, number: int) -> LayerWeights[Int8Matrix]:
        names = [field.name for field in fields(LayerWeights)]
        parts: dict[str, Any] = {name: self._part_if_any(f"layers.{number}.{name}") for name in names}
        return LayerWeights(**parts)

    def _part_if_any(self, name: str) -> Fp32Array | Int8Matrix | None:
        return None if self._arrays.keys().isdisjoint({name, f"{name}.values"}) else self._part(name)

    def _part(self, name: str) -> Fp32Array | Int8Matrix:
        if name in self._arrays:
            return self._arrays[name]
        two_pass = f"{name}.two_pass" in self._arrays
        return Int8Matrix(self._arrays[f"{name}.values"], self._arrays[f"{name}.scales"], two_pass=two_pass)


def _arrays(name: str, part: Fp32Array | Int8Matrix) -> Iterator[tuple[str, Array]]:
    if not isinstance(part, Int8Matrix):
        yield name, part
        return
    yield f"{name}.values", part.values
    yield f"{name}.scales", part.scales
    if part.two_pass:
        yield f"{name}.two_pass", np.ones(1, np.int8)
