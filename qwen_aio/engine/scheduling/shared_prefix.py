"""Prefixes that a prompt shares with sequences that still compute them. Knows no torch and no text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from qwen_aio.engine.scheduling.sequence import Sequence

# Rows of a shared prefix that are worth waiting for until another sequence has computed them.
MIN_SPARED = 32


def shared_prefixes(
    prompt_ids: list[int], running: Iterable[Sequence], *, num_cached: int
) -> Iterator[tuple[Sequence, int]]:
    """Each running sequence that shares more than the cached rows, and how many rows it could spare the prompt."""
    for other in running:
        num_spared = _num_shared(prompt_ids[:-1], other.given_ids) - num_cached  # the last row is computed anyway
        if num_spared >= MIN_SPARED:
            yield other, num_spared


def _num_shared(ids: list[int], others: list[int]) -> int:
    """The length of the prefix that both have."""
    return next(
        (row for row, (token, other) in enumerate(zip(ids, others, strict=False)) if token != other),
        min(len(ids), len(others)),
    )
