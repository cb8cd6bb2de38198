"""How far a model in int8 is from the same model in fp32, found out without having either whole in memory.

Both read the same texts, layer by layer and side by side; then both say what comes next, one stretch of the vocabulary
after another. Gives numbers: what they mean is the caller's business.
"""

from __future__ import annotations

from collections.abc import Sequence as Series
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from qwen_aio.core import Scores
from qwen_aio.engine.config import ModelConfig
from qwen_aio.engine.model.forward import RmsNorm
from qwen_aio.engine.model.linear import Fp32Linear, Int8Linear, Int8Matrix
from qwen_aio.engine.model.weights import BLOCK_ROWS, Checkpoint
from qwen_aio.engine.quant.int8_weights import Int8Weights, embedding_of, linear_of
from qwen_aio.engine.quant.layerwise import LayerwisePass
from qwen_aio.engine.quant.quantise import readings
from qwen_aio.engine.requests import Score
from qwen_aio.engine.scheduling.decision_sequence import DecisionSequence
from qwen_aio.engine.scheduling.label_tree import LabelTree
from qwen_aio.engine.text.tokenizer import Tokenizer
from qwen_aio.engine.text.truncation import truncate


@dataclass(frozen=True)
class Comparison:
    """What both said."""

    scores: tuple[tuple[Scores, Scores], ...]  # of every question: in fp32, in int8
    mean_kl: float  # nats; KL(fp32 || int8) of the distributions after `num_tokens` tokens of sentences
    num_tokens: int


class PrecisionDifference:
    """Both models after their last layers, and the distributions that they lead to."""

    def __init__(self, checkpoint: Checkpoint, output: Tensor | Int8Matrix, exact: Tensor, rounded: Tensor) -> None:
        """`output` is the int8 model's output matrix; `exact` and `rounded` are final hidden states, (n, hidden)."""
        self._checkpoint = checkpoint
        self._output = output
        self._exact = exact
        self._rounded = rounded
        self._sizes = torch.full((2, len(exact)), -torch.inf)  # logsumexp of all logits
        self._differences = torch.zeros(len(exact))  # mean of exact - rounded logits, as the exact side expects them
        for number, block in enumerate(checkpoint.blocks(is_output=True)):
            rows = slice(number * BLOCK_ROWS, number * BLOCK_ROWS + len(block))
            self._meet(Fp32Linear(block)(exact), linear_of(_part(output, rows))(rounded))

    @property
    def kl(self) -> Tensor:
        """KL(fp32 || int8) of each row, (n,)"""
        return self._differences - self._sizes[0] + self._sizes[1]

    def logprobs(self, row: int, tokens: list[int]) -> tuple[dict[int, float], dict[int, float]]:
        """What `tokens` get after `row` on both sides."""
        ids = torch.tensor(tokens)
        exact = Fp32Linear(self._checkpoint.rows(ids, is_output=True))(self._exact[row : row + 1])[0]
        rounded = linear_of(_part(self._output, ids))(self._rounded[row : row + 1])[0]
        sides = ((logits - size).tolist() for logits, size in zip((exact, rounded), self._sizes[:, row], strict=True))
        in_fp32, in_int8 = (dict(zip(tokens, side, strict=True)) for side in sides)
        return in_fp32, in_int8

    def _meet(self, exact: Tensor, rounded: Tensor) -> None:
        """The logits of some more of the vocabulary, (n, some) each."""
        difference = (exact.softmax(1) * (exact - rounded)).sum(1)
        sizes = torch.stack((exact.logsumexp(1), rounded.logsumexp(1)))
        self._differences.lerp_(difference, torch.sigmoid(sizes[0] - self._sizes[0]))
        self._sizes = self._sizes.logaddexp(sizes)


@torch.inference_mode()
def compare(
    checkpoint: Checkpoint, weights: Int8Weights, config: ModelConfig, tokenizer: Tokenizer, questions: Series[Score]
) -> Comparison:
    """`weights` are those of `checkpoint`. Raises InvalidModel, and for questions InvalidRequest, ContextTooSmall."""
    decisions, twins = ([_decision(question, tokenizer, config) for question in questions] for _ in range(2))
    passage = LayerwisePass([*readings(tokenizer, config), *decisions], config)
    outcome = _read(passage, checkpoint, weights, config)
    twin_of = dict(zip(decisions, twins, strict=True))
    kl: list[float] = []
    for index, (sequence, row) in enumerate(passage.wanted):
        match sequence:
            case DecisionSequence():
                in_fp32, in_int8 = outcome.logprobs(index, sequence.tokens_after(row))
                sequence.record(row, in_fp32)
                twin_of[sequence].record(row, in_int8)
            case _:
                kl.append(float(outcome.kl[index]))
    said = tuple((one.scores(now_s=0.0), twin.scores(now_s=0.0)) for one, twin in twin_of.items())
    return Comparison(said, mean_kl=sum(kl) / len(kl), num_tokens=len(kl))


def _decision(question: Score, tokenizer: Tokenizer, config: ModelConfig) -> DecisionSequence:
    tree = LabelTree([tokenizer.encode_text(text) for text in question.continuations])
    fitted = truncate(question.prompt, tokenizer=tokenizer, room=config.max_positions - tree.num_rows)
    return DecisionSequence("", fitted, texts=question.continuations, tree=tree, arrived_s=0.0)


def _read(
    passage: LayerwisePass, checkpoint: Checkpoint, weights: Int8Weights, config: ModelConfig
) -> PrecisionDifference:
    """Both models read side by side."""
    embedding, output = weights.embedding(), weights.output()
    norm = RmsNorm(weights.norm(), config.rms_norm_eps)
    exact, rounded = passage.enter(checkpoint.rows), passage.enter(embedding_of(embedding))
    for number in range(config.num_layers):
        passage.through(checkpoint.layer(number).layer(config, Fp32Linear), exact)
        passage.through(weights.layer(number).layer(config, Int8Linear), rounded)
    return PrecisionDifference(checkpoint, output, passage.outcome(norm, exact), passage.outcome(norm, rounded))


def _part(matrix: Tensor | Int8Matrix, rows: slice | Tensor) -> Tensor | Int8Matrix:
    if isinstance(matrix, Tensor):
        return matrix[rows]
    return replace(matrix, values=matrix.values[rows], scales=matrix.scales[rows])
