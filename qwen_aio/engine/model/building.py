"""Weights from any source, in either precision -> the model in torch."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from qwen_aio.engine.config import ModelConfig
from qwen_aio.engine.model.forward import Layer, Qwen2, RmsNorm, rotations
from qwen_aio.engine.model.linear import Linear, embedding_of, linear_of, tensor_of
from qwen_aio.engine.weights.model_weights import Fp32Array, Int8Matrix, LayerWeights, Matrix, ModelWeights


def build_qwen2(weights: ModelWeights, config: ModelConfig, *, num_positions: int) -> Qwen2:
    """The model, its largest matrix first, while memory is free. Raises InvalidModel."""
    output = weights.output()
    # Packing the output matrix in int8 takes one core for as long as all layers together.
    with ThreadPoolExecutor(max_workers=1) as beside:
        packing = beside.submit(linear_of, output)
        # Read again unless shared: packing brings a copy's pages into memory, lookups only a few.
        shared = config.tied and not isinstance(output, Int8Matrix)
        return Qwen2(
            config=config,
            embedding=embedding_of(output if shared else weights.embedding()),
            layers=[build_layer(weights.layer(number), config, linear_of) for number in range(config.num_layers)],
            norm=RmsNorm(tensor_of(weights.norm()), config.rms_norm_eps),
            output=packing.result(),
            rotations=rotations(config, num_positions),
        )


def build_layer(
    weights: LayerWeights[Matrix], config: ModelConfig, linear: Callable[[Matrix, Fp32Array | None], Linear]
) -> Layer:
    """The Layer with these weights; `linear` makes its products of matrix and bias."""

    def norm(weight: Fp32Array) -> RmsNorm:
        return RmsNorm(tensor_of(weight), config.rms_norm_eps)

    return Layer(
        config,
        attention_norm=norm(weights.attention_norm),
        qkv=linear(weights.qkv, weights.qkv_bias),
        qk_norm=None if weights.qk_norm is None else norm(weights.qk_norm),
        attention_output=linear(weights.attention_output, None),
        mlp_norm=norm(weights.mlp_norm),
        gate_up=linear(weights.gate_up, None),
        down=linear(weights.down, None),
    )
