"""Logits -> the next token.

Filters stand in the order transformers applies them: repetition penalty, temperature, top_k, top_p. Randomness is a
pure function of (seed, index of the token), so an answer does not depend on who shares its batch, and one that is
taken up again elsewhere goes on as it would have. Knows no sequences.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qwen_aio.core import Sampling
from qwen_aio.errors import InvalidRequest

GREEDY_BELOW = 1e-4  # a lower temperature would only overflow on its way to the same token


class Sampler:
    """Draws among the allowed ids; everything else has no chance."""

    def __init__(self, allowed_ids: Iterable[int], *, vocab_size: int) -> None:
        """`vocab_size`: rows of the output matrix, some of which stand for no token at all."""
        self._banned_ids = torch.tensor(sorted(set(range(vocab_size)).difference(allowed_ids)), dtype=torch.long)

    def pick(self, logits: Tensor, sampling: Sampling, *, seen_ids: NDArray[np.int64], seed: int, index: int) -> int:
        """The token at `index` of an answer. `logits` (vocab,) are overwritten; `seen_ids`: prompt and answer.

        Where a logit is no number there is no chance to go by: an answer is then as worthless as a greedy one.
        """
        logits.index_fill_(0, self._banned_ids, -torch.inf)
        if sampling.repetition_penalty != 1:
            _penalize(logits, torch.from_numpy(seen_ids), sampling.repetition_penalty)
        best = int(logits.numpy().argmax())  # twelve times as fast as torch's
        if sampling.temperature < GREEDY_BELOW or not logits[best].isfinite():
            return best
        likely, ids = _most_likely((logits - logits[best]) / sampling.temperature, sampling)
        cumulative = likely.double().cumsum(0)
        place = torch.searchsorted(cumulative, cumulative[-1] * uniform(seed, index), right=True)
        return int(ids[min(int(place), len(ids) - 1)])  # the product may round up to the whole sum


def check_sampling(sampling: Sampling, *, max_tokens: int) -> None:
    """Raises InvalidRequest naming the field that is out of range."""
    ranges = {
        "max_tokens": (1 <= sampling.max_tokens <= max_tokens, f"must be 1 to {max_tokens}"),
        "temperature": (math.isfinite(sampling.temperature) and sampling.temperature >= 0, "must be 0 or more"),
        "top_p": (0 < sampling.top_p <= 1, "must lie above 0 and at most at 1"),
        "top_k": (sampling.top_k >= 0, "must be 0 (off) or more"),
        "repetition_penalty": (0.01 <= sampling.repetition_penalty <= 100, "must be 0.01 to 100"),
        "stop": (all(sampling.stop), "must hold no empty string"),
    }
    for name, (is_fine, wish) in ranges.items():
        if not is_fine:
            raise InvalidRequest(f"{name} {wish}, not {getattr(sampling, name)!r}", param=name)


def uniform(seed: int, index: int) -> float:
    """A number in [0, 1) from a counter-based generator: no state, no order."""
    return float(np.random.Generator(np.random.Philox(key=seed % 2**64, counter=index)).random())


def _penalize(logits: Tensor, seen_ids: Tensor, penalty: float) -> None:
    """Seen tokens become less likely: positive logits are divided, negative ones multiplied."""
    seen = logits[seen_ids]
    logits.index_copy_(0, seen_ids, torch.where(seen < 0, seen * penalty, seen / penalty))


def _most_likely(logits: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """Probabilities and ids of the tokens that stay, most likely first."""
    num_kept = min(sampling.top_k, len(logits)) if sampling.top_k else len(logits)
    kept, ids = logits.topk(num_kept)
    probabilities = kept.softmax(0)
    if sampling.top_p < 1:
        before = probabilities.cumsum(0) - probabilities  # the token that crosses top_p stays
        probabilities = probabilities[before < sampling.top_p]
    return probabilities, ids[: len(probabilities)]
