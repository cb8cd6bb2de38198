"""A checkpoint's weights -> int8 or int4, layer by layer.

Calibration finds the matrices that need two passes: some sentences are computed in fp32, and a
matrix whose one-pass product is too far from the exact one gets two. That finds outliers in its
input, whatever their cause.
"""

from __future__ import annotations

from collections import abc
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from qwen_aio.engine.config import ModelConfig
from qwen_aio.engine.model.building import build_layer
from qwen_aio.engine.model.linear import NARROW_LEVELS, row_max, tensor_of
from qwen_aio.engine.native.int4_matrix import Int4Matrix
from qwen_aio.engine.quant.kept_weights import (
    MAX_ERROR,
    NUM_CALIBRATION,
    SENTENCE_TOKENS,
    SENTENCES,
    SMALL_EMBEDDING,
    SMALL_MAX_ERROR,
)
from qwen_aio.engine.quant.layerwise import HiddenStates, LayerwisePass, LayerwiseSequence
from qwen_aio.engine.text.tokenizer import Tokenizer
from qwen_aio.engine.weights.checkpoint import Checkpoint
from qwen_aio.engine.weights.model_weights import Fp32Array, Int8Matrix, LayerWeights


def calibration_texts(tokenizer: Tokenizer, config: ModelConfig) -> list[LayerwiseSequence]:
    """Calibration sentences: ordinary and tricky ones, Chinese and English in turn."""
    lines = SENTENCES.read_text(encoding="utf-8").splitlines()
    longest = min(SENTENCE_TOKENS, config.max_positions)
    return [LayerwiseSequence(line, tokenizer.encode_text(line)[:longest]) for line in lines]


class Quantised:
    """The weights of a checkpoint in int8, made on demand (ModelWeights)."""

    def __init__(
        self, checkpoint: Checkpoint, config: ModelConfig, sentences: abc.Sequence[LayerwiseSequence], *, levels: int
    ) -> None:
        """`sentences` must be new; the first NUM_CALIBRATION are used. `levels` of inputs on either side of zero."""
        self._checkpoint = checkpoint
        self._config = config
        self._levels = levels
        self._layerwise = LayerwisePass(sentences[:NUM_CALIBRATION], config)
        self._states: HiddenStates = []  # before the next layer

    def embedding(self) -> Fp32Array | Int8Matrix:
        return self._checkpoint.embedding() if self._is_small else self._rows(is_output=False)

    def output(self) -> Fp32Array | Int8Matrix:
        return self._checkpoint.output() if self._is_small else self._rows(is_output=True)

    def norm(self) -> Fp32Array:
        return self._checkpoint.norm()

    def layer(self, number: int) -> LayerWeights[Int8Matrix]:
        return self._choices(number).converted(lambda choice: choice.in_int8(self._allowed))

    def layer_in_int4(self, number: int) -> LayerWeights[Int4Matrix]:
        """Instead of `layer`; with two passes where int8 gets them."""
        return self._choices(number).converted(lambda choice: choice.in_int4(self._allowed))

    @torch.inference_mode()
    def _choices(self, number: int) -> LayerWeights[TwoPassChoice]:
        if number == 0:
            self._states = self._layerwise.embed(lambda ids: tensor_of(self._checkpoint.rows(ids.numpy())))
        choices = self._checkpoint.layer(number).converted(partial(TwoPassChoice, levels=self._levels))
        self._layerwise.run_layer(build_layer(choices, self._config, TwoPassChoice.biased), self._states)
        return choices

    @property
    def _allowed(self) -> float:
        """The relative error of a product from which it gets two passes."""
        return SMALL_MAX_ERROR if self._is_small else MAX_ERROR

    @property
    def _is_small(self) -> bool:
        return self._config.vocab_size * self._config.hidden_size < SMALL_EMBEDDING

    def _rows(self, *, is_output: bool) -> Int8Matrix:
        """Converted in blocks: in fp32 this is by far the largest matrix."""
        values = np.empty((self._config.vocab_size, self._config.hidden_size), np.int8)
        scales = np.empty(self._config.vocab_size, np.float32)
        for rows, block in self._checkpoint.blocks(is_output=is_output):
            matrix = Int8Matrix.of(block)
            values[rows], scales[rows] = matrix.values, matrix.scales
        return Int8Matrix(values, scales, two_pass=self._levels == NARROW_LEVELS)


class QuantisedToInt4:
    """The same with layers in int4 (WeightsOf[Int4Matrix])."""

    def __init__(self, quantised: Quantised) -> None:
        self.embedding, self.output, self.norm = quantised.embedding, quantised.output, quantised.norm
        self.layer = quantised.layer_in_int4


class TwoPassChoice:
    """A Linear that multiplies exactly and measures the error of the one-pass int8 product."""

    def __init__(self, weight: Fp32Array, *, levels: int) -> None:
        self._weight = tensor_of(weight)
        self._matrix = Int8Matrix.of(weight)
        self._rounded = tensor_of(self._matrix.dense())
        self._levels = levels
        self._bias: Tensor | None = None
        self._squared_error = self._squared_size = 0.0

    def biased(self, bias: Fp32Array | None) -> TwoPassChoice:
        """Itself with this bias, which is exact and takes no part in the choice."""
        self._bias = None if bias is None else tensor_of(bias)
        return self

    def in_int8(self, allowed: float) -> Int8Matrix:
        """The matrix, with two passes if the relative error exceeds `allowed`."""
        return replace(self._matrix, two_pass=self._needs_two(allowed))

    def in_int4(self, allowed: float) -> Int4Matrix:
        """The same in int4."""
        return replace(Int4Matrix.of(self._weight.numpy()), two_pass=self._needs_two(allowed))

    def __call__(self, x: Tensor) -> Tensor:
        y = self.product(x)
        return y if self._bias is None else y.add_(self._bias)

    def add_to(self, residual: Tensor, x: Tensor) -> Tensor:
        return residual.add_(self.product(x))

    def product(self, x: Tensor) -> Tensor:
        y = functional.linear(x, self._weight)
        step = row_max(x) / self._levels
        one_pass = functional.linear((x / step).round_().mul_(step), self._rounded)
        self._squared_error += float((one_pass - y).square_().sum())
        self._squared_size += float(y.square().sum())
        return y

    def _needs_two(self, allowed: float) -> bool:
        return self._squared_error > allowed**2 * self._squared_size
