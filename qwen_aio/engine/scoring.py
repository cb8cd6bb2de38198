"""Logits -> log probabilities of chosen tokens, normalised over the whole vocabulary, so that label mass is exact."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def token_logprobs(logits: Tensor, tokens: Sequence[int]) -> dict[int, float]:
    """Natural log probability of each of `tokens`, given `logits` (vocab,) of one row."""
    chosen: list[float] = (logits[list(tokens)] - logits.logsumexp(0)).tolist()
    return dict(zip(tokens, chosen, strict=True))
