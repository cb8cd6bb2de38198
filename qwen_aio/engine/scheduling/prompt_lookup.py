"""Prompt lookup: draft tokens taken from the text itself.

The draft is what followed the text's last tokens where they occurred before. An index maps every
n-gram of three and of two tokens to the row after its latest occurrence. It grows with the text and
is never rebuilt, so a token costs the same however long the text is. Knows token ids only; each
answer owns one.
"""

from __future__ import annotations

from collections import abc

LENGTHS = (3, 2)  # of the n-grams, the best match first


class PromptLookup:
    """An index over one growing list of token ids."""

    def __init__(self) -> None:
        self._next_row: dict[tuple[int, ...], int] = {}  # n-gram -> row after its latest occurrence
        self._num_indexed = 0

    def propose(self, ids: abc.Sequence[int], *, max_tokens: int) -> list[int]:
        """`max_tokens` draft tokens after `ids`, or none. `ids` only grow from call to call."""
        self._index(ids)
        for length in LENGTHS:
            row = self._next_row.get(tuple(ids[-length:]))
            if row is not None:
                period = len(ids) - row  # past the end of the text the match repeats
                return [ids[row + number % period] for number in range(max_tokens)]
        return []

    def _index(self, ids: abc.Sequence[int]) -> None:
        """Index every n-gram that a token follows; the last one waits for the next token."""
        for row in range(self._num_indexed, len(ids)):
            for length in LENGTHS:
                if row >= length:
                    self._next_row[tuple(ids[row - length : row])] = row
        self._num_indexed = len(ids)
