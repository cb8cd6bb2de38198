"""What may come next, read off the text itself: what followed its last tokens where they stood before.

An index from every run of three and of two tokens to the place behind its latest occurrence. It grows with the text
and is never built anew, so a token costs the same however long the text is. Knows token ids only; one per answer,
owned by it.
"""

from __future__ import annotations

from collections.abc import Sequence

LENGTHS = (3, 2)  # of the runs that are looked for; the longer one tells more


class PromptLookup:
    """An index over one growing list of token ids."""

    def __init__(self) -> None:
        self._behind: dict[tuple[int, ...], int] = {}  # run of tokens -> row of the token that followed it last
        self._num_read = 0

    def guess(self, ids: Sequence[int], *, max_tokens: int) -> list[int]:
        """The `max_tokens` tokens that may follow `ids`, or none. `ids` begin with those of every earlier call."""
        self._read(ids)
        for length in LENGTHS:
            at = self._behind.get(tuple(ids[-length:]))
            if at is not None:
                period = len(ids) - at  # where the text ends, its end is repeated
                return [ids[at + number % period] for number in range(max_tokens)]
        return []

    def _read(self, ids: Sequence[int]) -> None:
        """Index every run that a token follows; the last one waits for the next token."""
        for row in range(self._num_read, len(ids)):
            for length in LENGTHS:
                if row >= length:
                    self._behind[tuple(ids[row - length : row])] = row
        self._num_read = len(ids)
