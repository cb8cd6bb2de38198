"""A checkpoint's weights -> int8, layer by layer.

Which matrices are multiplied finely is found out on the way: some sentences are read in fp32, and where the coarse
product of what comes by is too far from the exact one, the matrix is made fine. Outliers in a matrix's input are seen
that way wherever they come from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence as Series
from dataclasses import replace
from importlib.resources import files

import torch
from torch import Tensor
from torch.nn import functional

from qwen_aio.engine.config import ModelConfig
from qwen_aio.engine.model.linear import NARROW_LEVELS, Int8Linear, Int8Matrix, activation_levels
from qwen_aio.engine.model.weights import Checkpoint, LayerWeights
from qwen_aio.engine.quant.layerwise import HiddenStates, LayerwisePass, LayerwiseSequence
from qwen_aio.engine.text.tokenizer import Tokenizer

SMALL_EMBEDDING = 2**24  # numbers; one with fewer stays in fp32
# Error over size of a matrix's products from which on it is fine. Rounding the weights and a plain input make 0.011
# (0.018 where activations have 63 levels), the heavy-tailed input of a down projection 0.025 (0.05). That hardly moves
# a large model's next token (KL 0.0015 on the shape of 0.5B); a small one, with fewer features to even it out, changes
# too many labels by it (benchmarks/LOG.md).
COARSE_ERROR, SMALL_COARSE_ERROR = 0.060, 0.012
NUM_JUDGED = 12  # sentences; each matrix sees some hundred rows
SENTENCE_TOKENS = 64  # a tokenizer that knows no words makes many of a sentence
SENTENCES = files("qwen_aio.engine") / "sentences.txt"


def recipe() -> str:
    """Short, and another one whenever the sentences or the numbers above are others."""
    numbers = (SMALL_EMBEDDING, COARSE_ERROR, SMALL_COARSE_ERROR, NUM_JUDGED, SENTENCE_TOKENS)
    return hashlib.sha256(SENTENCES.read_bytes() + repr(numbers).encode()).hexdigest()[:8]


def readings(tokenizer: Tokenizer, config: ModelConfig) -> list[LayerwiseSequence]:
    """Ordinary and tricky sentences, Chinese and English by turns, that tell how a model computes."""
    lines = SENTENCES.read_text(encoding="utf-8").splitlines()
    longest = min(SENTENCE_TOKENS, config.max_positions)
    return [LayerwiseSequence(line, tokenizer.encode_text(line)[:longest]) for line in lines]


class Quantised:
    """The weights of a checkpoint in int8, made when they are asked for (an Int8Weights)."""

    def __init__(self, checkpoint: Checkpoint, config: ModelConfig, sentences: Series[LayerwiseSequence]) -> None:
        """`sentences` are new ones; those in front are read for judging."""
        self._checkpoint = checkpoint
        self._config = config
        self._passage = LayerwisePass(sentences[:NUM_JUDGED], config)
        self._states: HiddenStates = []  # of the sentences, before the next layer

    def embedding(self) -> Tensor | Int8Matrix:
        return self._checkpoint.embedding() if self._is_small else self._rows(is_output=False)

    def output(self) -> Tensor | Int8Matrix:
        if not self._is_small:
            return self._rows(is_output=True)
        return self._checkpoint.embedding() if self._config.tied else self._checkpoint.output()

    def norm(self) -> Tensor:
        return self._checkpoint.norm()

    def layer(self, number: int) -> LayerWeights[Int8Matrix]:
        if number == 0:
            self._states = self._passage.enter(self._checkpoint.rows)
        judged = self._checkpoint.layer(number).converted(TwoPassChoice)
        self._passage.through(judged.layer(self._config, TwoPassChoice.biased), self._states)
        allowed = SMALL_COARSE_ERROR if self._is_small else COARSE_ERROR
        return judged.converted(lambda matrix: matrix.verdict(allowed))

    @property
    def _is_small(self) -> bool:
        return self._config.vocab_size * self._config.hidden_size < SMALL_EMBEDDING

    def _rows(self, *, is_output: bool) -> Int8Matrix:
        """Some thousand rows at a time: in fp32 this is the largest matrix by far."""
        values = torch.empty(self._config.vocab_size, self._config.hidden_size, dtype=torch.int8)
        scales = torch.empty(self._config.vocab_size)
        start = 0
        for block in self._checkpoint.blocks(is_output=is_output):
            stop = start + len(block)
            rows = Int8Matrix.of(block)
            values[start:stop], scales[start:stop] = rows.values, rows.scales
            start = stop
        return Int8Matrix(values, scales, is_fine=activation_levels() == NARROW_LEVELS)


class TwoPassChoice:
    """A matrix that multiplies exactly and notes how far the coarse product would have been from that (a Linear)."""

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight
        self._matrix = Int8Matrix.of(weight)
        self._coarse = Int8Linear(self._matrix)
        self._bias: Tensor | None = None
        self._squared_error = self._squared_size = 0.0

    def biased(self, bias: Tensor | None) -> TwoPassChoice:
        """Itself, from now on with this bias; which is exact in any case, and not judged."""
        self._bias = bias
        return self

    def verdict(self, allowed: float) -> Int8Matrix:
        """The matrix as it has to be if an error of `allowed`, relative to the size of the product, is too much."""
        is_fine = self._squared_error > allowed**2 * self._squared_size
        return replace(self._matrix, is_fine=is_fine)

    def __call__(self, x: Tensor) -> Tensor:
        y = self.product(x)
        return y if self._bias is None else y.add_(self._bias)

    def add_to(self, residual: Tensor, x: Tensor) -> Tensor:
        return residual.add_(self.product(x))

    def product(self, x: Tensor) -> Tensor:
        y = functional.linear(x, self._weight)
        self._squared_error += float((self._coarse(x) - y).square_().sum())
        self._squared_size += float(y.square().sum())
        return y
