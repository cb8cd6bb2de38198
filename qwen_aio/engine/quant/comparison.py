"""The difference between a model in int8 and in fp32, with fp32 never in memory as a whole.

Both compute the same texts; then both their logits, one block of the vocabulary after another. In
fp32 torch computes, layer by layer; in int8, what will serve. The caller judges the numbers.
"""

from __future__ import annotations

from collections import abc, defaultdict
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from qwen_aio.engine.config import ModelConfig
from qwen_aio.engine.model.building import build_layer
from qwen_aio.engine.model.forward import RmsNorm
from qwen_aio.engine.model.linear import Embedding, embedding_of, linear_of, tensor_of
from qwen_aio.engine.native.model import NativeQwen
from qwen_aio.engine.quant.layerwise import LayerwisePass, num_slots_of, steps_of
from qwen_aio.engine.quant.quantise import calibration_texts
from qwen_aio.engine.requests import Score
from qwen_aio.engine.scheduling.decision_sequence import DecisionSequence
from qwen_aio.engine.scheduling.label_tree import LabelTree
from qwen_aio.engine.scheduling.sequence import Sequence
from qwen_aio.engine.text.tokenizer import Tokenizer
from qwen_aio.engine.text.truncation import truncate
from qwen_aio.engine.weights.checkpoint import Checkpoint
from qwen_aio.engine.weights.model_weights import ModelWeights
from qwen_aio.result import Scores


@dataclass(frozen=True)
class Comparison:
    """The results of both models."""

    scores: tuple[tuple[Scores, Scores], ...]  # of each question: in fp32, in int8
    mean_kl: float  # nats; KL(fp32 || int8) of the next token, after `num_tokens` tokens
    num_tokens: int


class Rounded(Protocol):
    """The model in int8."""

    def final_states(self, sequences: abc.Sequence[Sequence]) -> Tensor: ...  # (logit rows, hidden); they are new
    def logits(self, states: Tensor, tokens: slice) -> Tensor: ...  # (n, hidden) -> (n, tokens)


class RoundedInTorch:
    """Its weights, computed layer by layer (Rounded)."""

    def __init__(self, weights: ModelWeights, config: ModelConfig) -> None:
        self._weights = weights
        self._config = config
        self._output = weights.output()

    def final_states(self, sequences: abc.Sequence[Sequence]) -> Tensor:
        layerwise = LayerwisePass(sequences, self._config)
        return _final_states(layerwise, self._weights, embedding_of(self._weights.embedding()), self._config)

    def logits(self, states: Tensor, tokens: slice) -> Tensor:
        return linear_of(self._output[tokens])(states)


class RoundedByKernel:
    """What the C++ library computes (Rounded)."""

    def __init__(self, model: NativeQwen) -> None:
        self._model = model

    def final_states(self, sequences: abc.Sequence[Sequence]) -> Tensor:
        pool = self._model.new_pool(num_slots_of(sequences))
        return torch.cat([tensor_of(self._model.forward(spans, pool)) for spans in steps_of(sequences)])

    def logits(self, states: Tensor, tokens: slice) -> Tensor:
        return tensor_of(self._model.logits_of(states.numpy(), tokens))


class NextTokens:
    """The next-token distributions of both models, taken in blocks of the vocabulary."""

    def __init__(self, num_rows: int, wanted: abc.Mapping[int, abc.Sequence[int]]) -> None:
        """`wanted`: by row, the tokens whose log probabilities will be asked for."""
        self._lse = torch.full((2, num_rows), -torch.inf)  # logsumexp of all logits
        self._differences = torch.zeros(num_rows)  # of the logits, exact - rounded: expectation under exact
        self._wanted = wanted
        self._logits: dict[int, dict[int, tuple[float, float]]] = defaultdict(dict)  # row -> token -> both

    @property
    def kl(self) -> Tensor:
        """KL(fp32 || int8) of each row, (n,)"""
        return self._differences - self._lse[0] + self._lse[1]

    def logprobs(self, row: int) -> tuple[dict[int, float], dict[int, float]]:
        """Log probabilities of the wanted tokens after `row`: in fp32, in int8."""
        lse = self._lse[:, row].tolist()
        in_fp32, in_int8 = (
            {token: logits[side] - lse[side] for token, logits in self._logits[row].items()} for side in (0, 1)
        )
        return in_fp32, in_int8

    def add_block(self, tokens: slice, exact: Tensor, rounded: Tensor) -> None:
        """Take the logits of `tokens`, (n, tokens) each."""
        difference = (exact.softmax(1) * (exact - rounded)).sum(1)
        lse = torch.stack((exact.logsumexp(1), rounded.logsumexp(1)))
        self._differences.lerp_(difference, torch.sigmoid(lse[0] - self._lse[0]))
        self._lse = self._lse.logaddexp(lse)
        for row, asked in self._wanted.items():
            for token in asked:
                if tokens.start <= token < tokens.stop:
                    column = token - tokens.start
                    self._logits[row][token] = (float(exact[row, column]), float(rounded[row, column]))


@torch.inference_mode()
def compare(
    checkpoint: Checkpoint,
    rounded: Rounded,
    config: ModelConfig,
    tokenizer: Tokenizer,
    questions: abc.Sequence[Score],
) -> Comparison:
    """`rounded` is the model of `checkpoint` in int8.

    Raises InvalidModel, and for questions InvalidRequest, ContextTooSmall.
    """
    sides = [[_decision(each, tokenizer, config) for each in questions] for _ in range(2)]
    texts, same_texts = (calibration_texts(tokenizer, config) for _ in range(2))
    layerwise = LayerwisePass([*texts, *sides[0]], config)
    exact = _final_states(layerwise, checkpoint, lambda ids: tensor_of(checkpoint.rows(ids.numpy())), config)
    found = rounded.final_states([*same_texts, *sides[1]])
    rows = list(enumerate(layerwise.logit_rows))
    decisions = {index: (each, row) for index, (each, row) in rows if isinstance(each, DecisionSequence)}
    next_tokens = NextTokens(len(rows), {index: each.tokens_after(row) for index, (each, row) in decisions.items()})
    for tokens, block in checkpoint.blocks(is_output=True):
        next_tokens.add_block(tokens, linear_of(block)(exact), rounded.logits(found, tokens))
    twin_of = dict(zip(*sides, strict=True))
    for index, (sequence, row) in decisions.items():
        in_fp32, in_int8 = next_tokens.logprobs(index)
        sequence.record(row, in_fp32)
        twin_of[sequence].record(row, in_int8)
    kl = [one for index, one in enumerate(next_tokens.kl.tolist()) if index not in decisions]
    scores = tuple((one.scores(now_s=0.0), other.scores(now_s=0.0)) for one, other in twin_of.items())
    return Comparison(scores, mean_kl=sum(kl) / len(kl), num_tokens=len(kl))


def _decision(question: Score, tokenizer: Tokenizer, config: ModelConfig) -> DecisionSequence:
    tree = LabelTree([tokenizer.encode_text(text) for text in question.continuations])
    truncated = truncate(question.prompt, tokenizer=tokenizer, room=config.max_positions - tree.num_rows)
    return DecisionSequence("", truncated, texts=question.continuations, tree=tree, arrived_s=0.0)


def _final_states(layerwise: LayerwisePass, weights: ModelWeights, embedding: Embedding, config: ModelConfig) -> Tensor:
    """Final hidden states of the model with these weights, (len(logit_rows), hidden)."""
    states = layerwise.embed(embedding)
    for number in range(config.num_layers):
        layerwise.run_layer(build_layer(weights.layer(number), config, linear_of), states)
    return layerwise.final_states(RmsNorm(tensor_of(weights.norm()), config.rms_norm_eps), states)
