"""All weights of a model in int8, from any source, and the model made of them.

A small embedding stays in fp32: it costs little, and a small model depends on its precision.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from torch import Tensor

from qwen_aio.engine.config import ModelConfig
from qwen_aio.engine.model.forward import Qwen2, RmsNorm, rotations
from qwen_aio.engine.model.linear import (
    Embedding,
    Fp32Embedding,
    Fp32Linear,
    Int8Embedding,
    Int8Linear,
    Int8Matrix,
    Linear,
)
from qwen_aio.engine.model.weights import LayerWeights


class Int8Weights(Protocol):
    """A source of int8 weights. Layers are read in order, from the first on."""

    def embedding(self) -> Tensor | Int8Matrix:
        """(vocab, hidden); in fp32 if it is small"""

    def output(self) -> Tensor | Int8Matrix:
        """(vocab, hidden); in fp32 if it is small. Of a tied model, the embedding."""

    def norm(self) -> Tensor:
        """The last norm's weight, (hidden,)."""

    def layer(self, number: int) -> LayerWeights[Int8Matrix]:
        """All of layer `number`."""


def load_int8(weights: Int8Weights, config: ModelConfig, *, num_positions: int) -> Qwen2:
    """The model in int8, its largest matrix first, while memory is free. Raises InvalidModel."""
    output = weights.output()
    # Packing the output matrix takes one core for as long as all layers together.
    with ThreadPoolExecutor(max_workers=1) as beside:
        packing = beside.submit(linear_of, output)
        # Read again unless shared: packing brings all pages of a copy into memory, lookups only a
        # few.
        shared = config.tied and isinstance(output, Tensor)
        return Qwen2(
            config=config,
            embedding=embedding_of(output if shared else weights.embedding()),
            layers=[weights.layer(number).layer(config, Int8Linear) for number in range(config.num_layers)],
            norm=RmsNorm(weights.norm(), config.rms_norm_eps),
            output=packing.result(),
            rotations=rotations(config, num_positions),
        )


def embedding_of(matrix: Tensor | Int8Matrix) -> Embedding:
    """The embedding with these rows."""
    return Fp32Embedding(matrix) if isinstance(matrix, Tensor) else Int8Embedding(matrix)


def linear_of(matrix: Tensor | Int8Matrix) -> Linear:
    """The product with this matrix."""
    return Fp32Linear(matrix) if isinstance(matrix, Tensor) else Int8Linear(matrix)
