"""Logits -> the next token, or the log probabilities of given tokens.

Filters apply in the order of transformers: repetition penalty, temperature, top_k, top_p; presence
and frequency penalty come after the repetition penalty, as in vLLM. Of equal logits, the one with the
lowest id counts as more likely.
Randomness is a pure function of (seed, index of the token): the same in any batch, and where an
answer is resumed on another worker; so are the logits of the C++ kernels. Knows no sequences.
"""

from __future__ import annotations

from collections import abc

import numpy as np
from numpy.typing import NDArray

from qwen_aio.core import Sampling

LEAST_LOGPROB = -9999.0  # of what is impossible: JSON has no infinity; OpenAI's number
GREEDY_BELOW = 1e-4  # a lower temperature overflows before it yields the same token
HOTTEST = 1e30  # a higher one overflows; at this one all tokens are equally likely
BLOCKS = 64  # of the vocabulary, one of whose minima is read instead of so many numbers
FIRST_COUNTS = (256, 2048, 16_384)  # of the likeliest tokens, which are tried before all are sorted

_without_warnings = np.errstate(all="ignore")  # of overflow: any numbers are right


class Sampler:
    """Samples among the allowed ids.

    Total: for any logits and any numbers in `sampling` the result is an allowed token, and the best
    allowed token can always be drawn.
    """

    def __init__(self, allowed_ids: abc.Collection[int], *, vocab_size: int) -> None:
        """`vocab_size`: rows of the output matrix, some of which are no token."""
        self._banned_ids = np.array(sorted(set(range(vocab_size)).difference(allowed_ids)), np.int64)
        self._any_id = min(allowed_ids)
        self._num_allowed = vocab_size - len(self._banned_ids)

    @_without_warnings
    def pick(
        self, logits: NDArray[np.float32], sampling: Sampling, *, seen_ids: NDArray[np.int64], seed: int, index: int
    ) -> int:
        """Token `index` of an answer; `seen_ids`: the prompt and the `index` tokens before. Overwrites `logits`."""
        if sampling.repetition_penalty != 1:
            _penalize(logits, seen_ids, sampling.repetition_penalty)
        if index and (sampling.presence_penalty or sampling.frequency_penalty):
            _penalize_counted(logits, seen_ids[-index:], sampling)
        logits[self._banned_ids] = -np.inf
        best = int(logits.argmax())
        if not np.isfinite(logits[best]):
            return self._best_of_broken(logits)
        if not sampling.temperature >= GREEDY_BELOW:
            return best
        likely, ids = most_likely(np.subtract(logits[best], logits, out=logits), sampling)
        cumulative = likely.cumsum(dtype=np.float64)
        place = int(cumulative.searchsorted(cumulative[-1] * uniform(seed, index), side="right"))
        return int(ids[place]) if place < len(ids) else best  # the product may round up to the whole sum

    @_without_warnings
    def ranked(self, logits: NDArray[np.float32], *, count: int, token: int) -> dict[int, float]:
        """Log probabilities of the `count` most likely allowed ids, best first, then of `token` if it is not one.

        Normalised over all `logits` (vocab,) of one row, as the model gives them.
        """
        lse = _logsumexp(logits)
        logprobs = (logits - lse).clip(LEAST_LOGPROB, 0) if np.isfinite(lse) else np.full_like(logits, LEAST_LOGPROB)
        chosen = float(logprobs[token])
        logprobs[self._banned_ids] = -np.inf
        ids = _smallest(0 - logprobs, count=min(count, self._num_allowed))
        return dict(zip(ids.tolist(), logprobs[ids].tolist(), strict=True)) | {token: chosen}

    def _best_of_broken(self, logits: NDArray[np.float32]) -> int:
        """The best of logits that are partly NaN or infinite, as there are no probabilities."""
        logits[np.isnan(logits)] = -np.inf
        best = int(logits.argmax())
        return best if logits[best] > -np.inf else self._any_id


def keep(logits: NDArray[np.float32], allowed: NDArray[np.bool_]) -> None:
    """Make every id impossible that is not `allowed`, or above all that `allowed` knows."""
    known = allowed[: len(logits)]
    np.copyto(logits[: len(known)], -np.inf, where=~known)
    logits[len(known) :] = -np.inf


@_without_warnings
def token_logprobs(logits: NDArray[np.float32], tokens: abc.Sequence[int]) -> dict[int, float]:
    """Log probability of each of `tokens`, normalised over all `logits` (vocab,) of one row."""
    chosen: list[float] = (logits[list(tokens)] - _logsumexp(logits)).tolist()
    return dict(zip(tokens, chosen, strict=True))


def most_likely(gaps: NDArray[np.float32], sampling: Sampling) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Probabilities and ids of the tokens that pass temperature, top_k and top_p, most likely first.

    `gaps` (vocab,): how much less each logit is than the best one, infinite where it is impossible.
    """
    if sampling.top_k > 0:
        ids = _smallest(gaps, count=sampling.top_k)
        likely = _probabilities(gaps[ids], sampling.temperature)
        num_kept = _num_within(likely, sampling.top_p)
    else:
        probabilities = _probabilities(gaps, sampling.temperature)
        for count in (*(FIRST_COUNTS if sampling.top_p < 1 else ()), len(gaps)):
            ids = _smallest(gaps, count=count)
            likely = probabilities[ids]
            num_kept = _num_within(likely, sampling.top_p)
            if num_kept <= len(ids):  # they reach top_p, so no other token passes
                break
    return likely[:num_kept], ids[:num_kept]


def uniform(seed: int, index: int) -> float:
    """A number in [0, 1) from a counter-based generator: no state, no order."""
    return float(np.random.Generator(np.random.Philox(key=seed % 2**64, counter=index)).random())


def _penalize(logits: NDArray[np.float32], seen_ids: NDArray[np.int64], penalty: float) -> None:
    """Seen tokens become less likely: positive logits are divided, negative ones multiplied."""
    seen = logits[seen_ids]
    logits[seen_ids] = np.where(seen < 0, seen * penalty, seen / penalty)


def _penalize_counted(logits: NDArray[np.float32], answer_ids: NDArray[np.int64], sampling: Sampling) -> None:
    """OpenAI's formula: a token of the answer loses the presence penalty once, the frequency penalty each time."""
    ids, counts = np.unique(answer_ids, return_counts=True)
    logits[ids] -= sampling.presence_penalty + counts.astype(np.float32) * sampling.frequency_penalty


def _logsumexp(logits: NDArray[np.float32]) -> np.float32:
    """Infinite or NaN where a logit is, or where all are -inf."""
    best = logits.max()
    peak = best if np.isfinite(best) else np.float32(0)
    terms = logits - peak
    lse: np.float32 = peak + np.log(np.exp(terms, out=terms).sum())
    return lse


def _probabilities(gaps: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """The softmax of the logits with these gaps."""
    weights = gaps / -min(temperature, HOTTEST)
    np.exp(weights, out=weights)
    weights /= weights.sum()
    return weights


def _num_within(likely: NDArray[np.float32], top_p: float) -> int:
    """How many of the first pass top_p, the one that crosses it included; more than there are if none does."""
    if not top_p < 1:
        return len(likely)
    return int(likely.cumsum(dtype=np.float64).searchsorted(top_p)) + 1


def _smallest(gaps: NDArray[np.float32], *, count: int) -> NDArray[np.int64]:
    """Ids of the `count` smallest gaps in order, of equal ones the lowest id first; no infinite ones."""
    ids = np.flatnonzero(gaps <= _limit(gaps, count))
    bits = (gaps[ids] + 0).view(np.int32)  # ordered like the numbers, as none is negative, nor -0.0 after + 0
    keys = bits.astype(np.int64) << 32 | ids
    keys.sort()
    return keys[:count] & 0xFFFF_FFFF


def _limit(gaps: NDArray[np.float32], count: int) -> np.float32:
    """A finite number that at least `count` gaps do not exceed, if so many are finite."""
    most = np.finfo(np.float32).max
    if count >= len(gaps):
        return most
    last, width = max(count - 1, 0), len(gaps) // BLOCKS
    if count < width // 4:  # a gap below a minimum is rare then
        gaps = gaps[: width * BLOCKS].reshape(BLOCKS, width).min(axis=0)
    return min(np.partition(gaps, last)[last], most)
