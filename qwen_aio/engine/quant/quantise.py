"""A checkpoint's weights -> int8, layer by layer.

Calibration finds the matrices that need two passes: some sentences are computed in fp32, and a
matrix whose one-pass product is too far from the exact one gets two. That finds outliers in its
input, whatever their cause.
"""

from __future__ import annotations

import hashlib
from collections import abc
from dataclasses import replace
from importlib.resources import files

import torch
from torch import Tensor
from torch.nn import functional

from qwen_aio.engine.config import ModelConfig
from qwen_aio.engine.model.checkpoint import Checkpoint
from qwen_aio.engine.model.linear import NARROW_LEVELS, Int8Linear, Int8Matrix, activation_levels
from qwen_aio.engine.model.weights import LayerWeights
from qwen_aio.engine.quant.layerwise import HiddenStates, LayerwisePass, LayerwiseSequence
from qwen_aio.engine.text.tokenizer import Tokenizer

# Raise it whenever int8 weights, their products, their file, or their comparison with fp32 change:
# kept copies and kept choices of precision are then made anew. `recipe` covers the numbers below.
VERSION = "1"
SMALL_EMBEDDING = 2**24  # numbers; one with fewer stays in fp32
# Relative error of a matrix's products from which it gets two passes. Rounding the weights and a
# plain input make 0.011 (0.018 where activations have 63 levels), the heavy-tailed input of a down
# projection 0.025 (0.05). That hardly moves a large model's next token (KL 0.0015 on the shape of
# 0.5B); a small one, with fewer features, changes too many labels (benchmarks/LOG.md).
MAX_ERROR, SMALL_MAX_ERROR = 0.060, 0.012
NUM_CALIBRATION = 12  # sentences; each matrix sees some hundred rows
SENTENCE_TOKENS = 64  # a tokenizer without words makes many of one sentence
SENTENCES = files("qwen_aio.engine") / "sentences.txt"


def recipe() -> str:
    """A short hash that changes with the sentences and the numbers above."""
    numbers = (SMALL_EMBEDDING, MAX_ERROR, SMALL_MAX_ERROR, NUM_CALIBRATION, SENTENCE_TOKENS)
    return hashlib.sha256(SENTENCES.read_bytes() + repr(numbers).encode()).hexdigest()[:8]


def calibration_texts(tokenizer: Tokenizer, config: ModelConfig) -> list[LayerwiseSequence]:
    """Calibration sentences: ordinary and tricky ones, Chinese and English in turn."""
    lines = SENTENCES.read_text(encoding="utf-8").splitlines()
    longest = min(SENTENCE_TOKENS, config.max_positions)
    return [LayerwiseSequence(line, tokenizer.encode_text(line)[:longest]) for line in lines]


class Quantised:
    """The weights of a checkpoint in int8, made on demand (ModelWeights)."""

    def __init__(self, checkpoint: Checkpoint, config: ModelConfig, sentences: abc.Sequence[LayerwiseSequence]) -> None:
        """`sentences` must be new; the first NUM_CALIBRATION are used."""
        self._checkpoint = checkpoint
        self._config = config
        self._layerwise = LayerwisePass(sentences[:NUM_CALIBRATION], config)
        self._states: HiddenStates = []  # before the next layer

    def embedding(self) -> Tensor | Int8Matrix:
        return self._checkpoint.embedding() if self._is_small else self._rows(is_output=False)

    def output(self) -> Tensor | Int8Matrix:
        return self._checkpoint.output() if self._is_small else self._rows(is_output=True)

    def norm(self) -> Tensor:
        return self._checkpoint.norm()

    def layer(self, number: int) -> LayerWeights[Int8Matrix]:
        if number == 0:
            self._states = self._layerwise.embed(self._checkpoint.rows)
        choices = self._checkpoint.layer(number).converted(TwoPassChoice)
        self._layerwise.run_layer(choices.layer(self._config, TwoPassChoice.biased), self._states)
        allowed = SMALL_MAX_ERROR if self._is_small else MAX_ERROR
        return choices.converted(lambda matrix: matrix.choose(allowed))

    @property
    def _is_small(self) -> bool:
        return self._config.vocab_size * self._config.hidden_size < SMALL_EMBEDDING

    def _rows(self, *, is_output: bool) -> Int8Matrix:
        """Converted in blocks: in fp32 this is by far the largest matrix."""
        values = torch.empty(self._config.vocab_size, self._config.hidden_size, dtype=torch.int8)
        scales = torch.empty(self._config.vocab_size)
        for rows, block in self._checkpoint.blocks(is_output=is_output):
            matrix = Int8Matrix.of(block)
            values[rows], scales[rows] = matrix.values, matrix.scales
        return Int8Matrix(values, scales, two_pass=activation_levels() == NARROW_LEVELS)


class TwoPassChoice:
    """A Linear that multiplies exactly and measures the error of the one-pass int8 product."""

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight
        self._matrix = Int8Matrix.of(weight)
        self._one_pass = Int8Linear(self._matrix)
        self._bias: Tensor | None = None
        self._squared_error = self._squared_size = 0.0

    def biased(self, bias: Tensor | None) -> TwoPassChoice:
        """Itself with this bias, which is exact and takes no part in the choice."""
        self._bias = bias
        return self

    def choose(self, allowed: float) -> Int8Matrix:
        """The matrix, with two passes if the relative error exceeds `allowed`."""
        two_pass = self._squared_error > allowed**2 * self._squared_size
        return replace(self._matrix, two_pass=two_pass)

    def __call__(self, x: Tensor) -> Tensor:
        y = self.product(x)
        return y if self._bias is None else y.add_(self._bias)

    def add_to(self, residual: Tensor, x: Tensor) -> Tensor:
        return residual.add_(self.product(x))

    def product(self, x: Tensor) -> Tensor:
        y = functional.linear(x, self._weight)
        self._squared_error += float((self._one_pass(x) - y).square_().sum())
        self._squared_size += float(y.square().sum())
        return y
