"""All weights of a model in int8, wherever they come from, and the model made of them.

A small embedding stays in fp32: it costs little, and in a small model its rows carry most of the meaning.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import torch
from torch import Tensor

from qwen_aio.engine.config import ModelConfig
from qwen_aio.engine.linear import (
    Embedding,
    Fp32Embedding,
    Fp32Linear,
    Int8Embedding,
    Int8Linear,
    Int8Matrix,
    Linear,
)
from qwen_aio.engine.model import Layer, Qwen2, RmsNorm, rotations
from qwen_aio.engine.weights import LayerWeights


class Int8Weights(Protocol):
    """What there is to ask for. Layers are asked for one after another, from the first on."""

    def embedding(self) -> Tensor | Int8Matrix:
        """(vocab, hidden); in fp32 if it is small"""
        ...

    def output(self) -> Tensor | Int8Matrix:
        """The output matrix, (vocab, hidden); in fp32 if it is small. Of a tied model, the embedding."""
        ...

    def norm(self) -> Tensor:
        """The last norm's weight, (hidden,)."""
        ...

    def layer(self, number: int) -> LayerWeights[Int8Matrix]:
        """All of layer `number`."""
        ...


def load_int8(weights: Int8Weights, config: ModelConfig, *, num_positions: int) -> Qwen2:
    """The model in int8. The largest matrices come first, while nothing else takes memory. Raises InvalidModel."""
    embedding, output = _both_ends(weights, config)
    return Qwen2(
        config=config,
        embedding=embedding,
        output=output,
        norm=RmsNorm(weights.norm(), config.rms_norm_eps),
        layers=_packed_layers(weights, config),
        rotations=rotations(config, num_positions),
    )


def _both_ends(weights: Int8Weights, config: ModelConfig) -> tuple[Embedding, Linear]:
    """Tokens in, logits out. What the output matrix was packed from is let go of here."""
    output = weights.output()
    by_product = product(output)
    # Read once more, unless it is the same in memory: packing a copy's numbers reads them all, looking up does not.
    shared = config.tied and isinstance(output, Tensor)
    return lookup(output if shared else weights.embedding()), by_product


def _packed_layers(weights: Int8Weights, config: ModelConfig) -> list[Layer]:
    """Read one after another, packed side by side: each takes one core. The threads end here."""
    with ThreadPoolExecutor(max_workers=torch.get_num_threads()) as packers:
        layers = [packers.submit(weights.layer(n).layer, config, Int8Linear) for n in range(config.num_layers)]
        return [layer.result() for layer in layers]


def lookup(matrix: Tensor | Int8Matrix) -> Embedding:
    """Its rows, to be looked up."""
    return Fp32Embedding(matrix) if isinstance(matrix, Tensor) else Int8Embedding(matrix)


def product(matrix: Tensor | Int8Matrix) -> Linear:
    """What multiplies with it."""
    return Fp32Linear(matrix) if isinstance(matrix, Tensor) else Int8Linear(matrix)
