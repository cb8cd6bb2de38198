"""All weights of a model in either precision, from any source, and the model made of them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from torch import Tensor

from qwen_aio.engine.config import ModelConfig
from qwen_aio.engine.model.forward import Layer, Qwen2, RmsNorm, rotations
from qwen_aio.engine.model.linear import Int8Matrix, Linear, embedding_of, linear_of

Matrix = TypeVar("Matrix", covariant=True)
Other = TypeVar("Other")

VECTORS = ("attention_norm", "qkv_bias", "qk_norm", "mlp_norm")  # of a layer; all else are matrices


@dataclass(frozen=True, eq=False)
class LayerWeights(Generic[Matrix]):
    """One layer as forward.py takes it: merged, q and k paired. Matrix: Tensor or Int8Matrix."""

    attention_norm: Tensor
    qkv: Matrix
    qkv_bias: Tensor | None
    qk_norm: Tensor | None  # (heads + kv heads, head_dim)
    attention_output: Matrix
    mlp_norm: Tensor
    gate_up: Matrix
    down: Matrix

    def layer(self, config: ModelConfig, linear: Callable[[Matrix, Tensor | None], Linear]) -> Layer:
        """The Layer with these weights; `linear` makes its products of matrix and bias."""
        return Layer(
            config,
            attention_norm=RmsNorm(self.attention_norm, config.rms_norm_eps),
            qkv=linear(self.qkv, self.qkv_bias),
            qk_norm=None if self.qk_norm is None else RmsNorm(self.qk_norm, config.rms_norm_eps),
            attention_output=linear(self.attention_output, None),
            mlp_norm=RmsNorm(self.mlp_norm, config.rms_norm_eps),
            gate_up=linear(self.gate_up, None),
            down=linear(self.down, None),
        )

    def converted(self, convert: Callable[[Matrix], Other]) -> LayerWeights[Other]:
        """The same layer, every matrix converted."""
        matrices: dict[str, Any] = {name: convert(part) for name, part in vars(self).items() if name not in VECTORS}
        return LayerWeights(**{**vars(self), **matrices})


class ModelWeights(Protocol):
    """A source of weights. Layers are read in order, from the first on.

    A small embedding is in fp32 even where the layers are in int8: it costs little, and a small
    model depends on its precision.
    """

    def embedding(self) -> Tensor | Int8Matrix: ...  # (vocab, hidden)
    def output(self) -> Tensor | Int8Matrix: ...  # (vocab, hidden); of a tied model, the embedding
    def norm(self) -> Tensor: ...  # the last norm's weight, (hidden,)
    def layer(self, number: int) -> LayerWeights[Tensor | Int8Matrix]: ...


def load_qwen2(weights: ModelWeights, config: ModelConfig, *, num_positions: int) -> Qwen2:
    """The model, its largest matrix first, while memory is free. Raises InvalidModel."""
    output = weights.output()
    # Packing the output matrix in int8 takes one core for as long as all layers together.
    with ThreadPoolExecutor(max_workers=1) as beside:
        packing = beside.submit(linear_of, output)
        # Read again unless shared: packing brings a copy's pages into memory, lookups only a few.
        shared = config.tied and isinstance(output, Tensor)
        return Qwen2(
            config=config,
            embedding=embedding_of(output if shared else weights.embedding()),
            layers=[weights.layer(number).layer(config, linear_of) for number in range(config.num_layers)],
            norm=RmsNorm(weights.norm(), config.rms_norm_eps),
            output=packing.result(),
            rotations=rotations(config, num_positions),
        )
