"""The difference between a model in int8 and in fp32, with neither of them in memory as a whole.

Each computes the same texts layer by layer; then both their logits, one block of the vocabulary
after another. The caller judges the numbers.
"""

from __future__ import annotations

from collections import abc
from dataclasses import dataclass

import torch
from torch import Tensor

from qwen_aio.engine.config import ModelConfig
from qwen_aio.engine.model.checkpoint import Checkpoint
from qwen_aio.engine.model.forward import RmsNorm
from qwen_aio.engine.model.linear import Embedding, Fp32Linear, Int8Matrix, embedding_of, linear_of
from qwen_aio.engine.model.weights import ModelWeights
from qwen_aio.engine.quant.layerwise import LayerwisePass
from qwen_aio.engine.quant.quantise import calibration_texts
from qwen_aio.engine.requests import Score
from qwen_aio.engine.scheduling.decision_sequence import DecisionSequence
from qwen_aio.engine.scheduling.label_tree import LabelTree
from qwen_aio.engine.text.tokenizer import Tokenizer
from qwen_aio.engine.text.truncation import truncate
from qwen_aio.result import Scores


@dataclass(frozen=True)
class Comparison:
    """The results of both models."""

    scores: tuple[tuple[Scores, Scores], ...]  # of each question: in fp32, in int8
    mean_kl: float  # nats; KL(fp32 || int8) of the next token, after `num_tokens` tokens
    num_tokens: int


class PrecisionDifference:
    """The next-token distributions of both models."""

    def __init__(self, checkpoint: Checkpoint, output: Tensor | Int8Matrix, exact: Tensor, rounded: Tensor) -> None:
        """`output`: the int8 output matrix; `exact`, `rounded`: final states, (n, hidden)."""
        self._checkpoint = checkpoint
        self._output = output
        self._exact = exact
        self._rounded = rounded
        self._lse = torch.full((2, len(exact)), -torch.inf)  # logsumexp of all logits
        self._differences = torch.zeros(len(exact))  # of the logits, exact - rounded: expectation under exact
        for rows, block in checkpoint.blocks(is_output=True):
            self._add_block(Fp32Linear(block)(exact), linear_of(output[rows])(rounded))

    @property
    def kl(self) -> Tensor:
        """KL(fp32 || int8) of each row, (n,)"""
        return self._differences - self._lse[0] + self._lse[1]

    def logprobs(self, row: int, tokens: list[int]) -> tuple[dict[int, float], dict[int, float]]:
        """Log probabilities of `tokens` after `row`: in fp32, in int8."""
        ids = torch.tensor(tokens)
        exact = Fp32Linear(self._checkpoint.rows(ids, is_output=True))(self._exact[row : row + 1])
        rounded = linear_of(self._output[ids])(self._rounded[row : row + 1])
        sides = torch.cat((exact, rounded)) - self._lse[:, row : row + 1]
        in_fp32, in_int8 = (dict(zip(tokens, side, strict=True)) for side in sides.tolist())
        return in_fp32, in_int8

    def _add_block(self, exact: Tensor, rounded: Tensor) -> None:
        """Take the logits of one more block of the vocabulary, (n, block) each."""
        difference = (exact.softmax(1) * (exact - rounded)).sum(1)
        lse = torch.stack((exact.logsumexp(1), rounded.logsumexp(1)))
        self._differences.lerp_(difference, torch.sigmoid(lse[0] - self._lse[0]))
        self._lse = self._lse.logaddexp(lse)


@torch.inference_mode()
def compare(
    checkpoint: Checkpoint,
    weights: ModelWeights,
    config: ModelConfig,
    tokenizer: Tokenizer,
    questions: abc.Sequence[Score],
) -> Comparison:
    """`weights` are the int8 weights of `checkpoint`.

    Raises InvalidModel, and for questions InvalidRequest, ContextTooSmall.
    """
    twin_of = {_decision(each, tokenizer, config): _decision(each, tokenizer, config) for each in questions}
    layerwise = LayerwisePass([*calibration_texts(tokenizer, config), *twin_of], config)
    exact = _final_states(layerwise, checkpoint, checkpoint.rows, config)
    rounded = _final_states(layerwise, weights, embedding_of(weights.embedding()), config)
    difference = PrecisionDifference(checkpoint, weights.output(), exact, rounded)
    kl: list[float] = []
    for index, (sequence, row) in enumerate(layerwise.logit_rows):
        if isinstance(sequence, DecisionSequence):
            in_fp32, in_int8 = difference.logprobs(index, sequence.tokens_after(row))
            sequence.record(row, in_fp32)
            twin_of[sequence].record(row, in_int8)
        else:
            kl.append(float(difference.kl[index]))
    scores = tuple((one.scores(now_s=0.0), twin.scores(now_s=0.0)) for one, twin in twin_of.items())
    return Comparison(scores, mean_kl=sum(kl) / len(kl), num_tokens=len(kl))


def _decision(question: Score, tokenizer: Tokenizer, config: ModelConfig) -> DecisionSequence:
    tree = LabelTree([tokenizer.encode_text(text) for text in question.continuations])
    truncated = truncate(question.prompt, tokenizer=tokenizer, room=config.max_positions - tree.num_rows)
    return DecisionSequence("", truncated, texts=question.continuations, tree=tree, arrived_s=0.0)


def _final_states(layerwise: LayerwisePass, weights: ModelWeights, embedding: Embedding, config: ModelConfig) -> Tensor:
    """Final hidden states of the model with these weights, (len(logit_rows), hidden)."""
    states = layerwise.embed(embedding)
    for number in range(config.num_layers):
        layerwise.run_layer(weights.layer(number).layer(config, linear_of), states)
    return layerwise.final_states(RmsNorm(weights.norm(), config.rms_norm_eps), states)
