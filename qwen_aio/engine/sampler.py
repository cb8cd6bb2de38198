"""Logits -> the next token, or the log probabilities of given tokens.

Filters apply in the order of transformers: repetition penalty, temperature, top_k, top_p; presence
and frequency penalty come after the repetition penalty, as in vLLM.
Randomness is a pure function of (seed, index of the token): the same in any batch, and where an
answer is resumed on another worker. The logits are not, to the last bit: see
tests/engine/test_company.py. Knows no sequences.
"""

from __future__ import annotations

from collections import abc

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qwen_aio.core import Sampling

LEAST_LOGPROB = -9999.0  # of what is impossible: JSON has no infinity; OpenAI's number
GREEDY_BELOW = 1e-4  # a lower temperature overflows before it yields the same token
HOTTEST = 1e30  # a higher one overflows; at this one all tokens are equally likely


class Sampler:
    """Samples among the allowed ids.

    Total: for any logits and any numbers in `sampling` the result is an allowed token, and the best
    allowed token can always be drawn.
    """

    def __init__(self, allowed_ids: abc.Collection[int], *, vocab_size: int) -> None:
        """`vocab_size`: rows of the output matrix, some of which are no token."""
        self._banned_ids = torch.tensor(sorted(set(range(vocab_size)).difference(allowed_ids)), dtype=torch.long)
        self._any_id = min(allowed_ids)
        self._num_allowed = vocab_size - len(self._banned_ids)

    def pick(self, logits: Tensor, sampling: Sampling, *, seen_ids: NDArray[np.int64], seed: int, index: int) -> int:
        """Token `index` of an answer; `seen_ids`: the prompt and the `index` tokens before. Overwrites `logits`."""
        if sampling.repetition_penalty != 1:
            _penalize(logits, torch.from_numpy(seen_ids), sampling.repetition_penalty)
        if index and (sampling.presence_penalty or sampling.frequency_penalty):
            _penalize_counted(logits, seen_ids[-index:], sampling)
        logits.index_fill_(0, self._banned_ids, -torch.inf)
        best = int(logits.numpy().argmax())  # twelve times as fast as torch's
        if not logits[best].isfinite():
            return self._best_of_broken(logits)
        if not sampling.temperature >= GREEDY_BELOW:
            return best
        likely, ids = most_likely((logits - logits[best]) / min(sampling.temperature, HOTTEST), sampling)
        cumulative = likely.double().cumsum(0)
        place = int(torch.searchsorted(cumulative, cumulative[-1] * uniform(seed, index), right=True))
        return int(ids[place]) if place < len(ids) else best  # the product may round up to the whole sum

    def ranked(self, logits: Tensor, *, count: int, token: int) -> dict[int, float]:
        """Log probabilities of the `count` most likely allowed ids, best first, then of `token` if it is not one.

        Normalised over all `logits` (vocab,) of one row, as the model gives them.
        """
        logprobs = logits.log_softmax(0).nan_to_num(nan=LEAST_LOGPROB).clamp(LEAST_LOGPROB, 0)
        chosen = float(logprobs[token])
        best, ids = logprobs.index_fill_(0, self._banned_ids, -torch.inf).topk(min(count, self._num_allowed))
        return dict(zip(ids.tolist(), best.tolist(), strict=True)) | {token: chosen}

    def _best_of_broken(self, logits: Tensor) -> int:
        """The best of logits that are partly NaN or infinite, as there are no probabilities."""
        logits.nan_to_num_(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
        best = int(logits.numpy().argmax())
        return best if logits[best] > -torch.inf else self._any_id


def keep(logits: Tensor, allowed: NDArray[np.bool_]) -> None:
    """Make every id impossible that is not `allowed`, or above all that `allowed` knows."""
    known = torch.from_numpy(allowed[: len(logits)])
    logits[: len(known)].masked_fill_(~known, -torch.inf)
    logits[len(known) :] = -torch.inf


def token_logprobs(logits: Tensor, tokens: abc.Sequence[int]) -> dict[int, float]:
    """Log probability of each of `tokens`, normalised over all `logits` (vocab,) of one row."""
    chosen: list[float] = (logits[list(tokens)] - logits.logsumexp(0)).tolist()
    return dict(zip(tokens, chosen, strict=True))


def uniform(seed: int, index: int) -> float:
    """A number in [0, 1) from a counter-based generator: no state, no order."""
    return float(np.random.Generator(np.random.Philox(key=seed % 2**64, counter=index)).random())


def _penalize(logits: Tensor, seen_ids: Tensor, penalty: float) -> None:
    """Seen tokens become less likely: positive logits are divided, negative ones multiplied."""
    seen = logits[seen_ids]
    logits.index_copy_(0, seen_ids, torch.where(seen < 0, seen * penalty, seen / penalty))


def _penalize_counted(logits: Tensor, answer_ids: NDArray[np.int64], sampling: Sampling) -> None:
    """OpenAI's formula: a token of the answer loses the presence penalty once, the frequency penalty each time."""
    ids, counts = map(torch.from_numpy, np.unique(answer_ids, return_counts=True))
    logits.index_add_(0, ids, sampling.presence_penalty + counts * sampling.frequency_penalty, alpha=-1)


def most_likely(logits: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Probabilities and ids of the tokens that pass top_k and top_p, most likely first."""
    num_kept = min(sampling.top_k, len(logits)) if sampling.top_k > 0 else len(logits)
    kept, ids = logits.topk(num_kept)
    probabilities = kept.softmax(0)
    if sampling.top_p < 1:
        before = probabilities.cumsum(0) - probabilities  # the token that crosses top_p stays
        num_kept = max(int((before < sampling.top_p).sum()), 1)  # the best one stays where top_p is 0 in float32
    return probabilities[:num_kept], ids[:num_kept]
