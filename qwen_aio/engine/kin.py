"""Sequences that begin alike, so that one of them can spare the other computing it. Knows no torch and no text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from qwen_aio.engine.sequence import Sequence

# Rows of a common beginning that are worth waiting for until another sequence has computed them.
MIN_SPARED = 32


def kin(given_ids: list[int], others: Iterable[Sequence], *, num_known: int) -> Iterator[tuple[Sequence, int]]:
    """The others that begin like `given_ids` for longer than is remembered, and how many rows that could spare."""
    given_ids = given_ids[:-1]  # the last one is computed anyway
    for other in others:
        num_spared = _num_common(given_ids, other.given_ids) - num_known
        if num_spared >= MIN_SPARED:
            yield other, num_spared


def _num_common(ids: list[int], others: list[int]) -> int:
    """The length of the beginning that both have."""
    return next(
        (row for row, (token, other) in enumerate(zip(ids, others, strict=False)) if token != other),
        min(len(ids), len(others)),
    )
