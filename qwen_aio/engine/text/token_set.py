"""A set of token ids as flags: a frozenset of a whole vocabulary takes a hundred times as much memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set

import numpy as np


class TokenSet(Set[int]):
    """Immutable."""

    def __init__(self, ids: Iterable[int]) -> None:
        members = np.fromiter(ids, np.int64)
        self._flags = np.zeros(int(members.max(initial=-1)) + 1, bool)
        self._flags[members] = True
        self._count = int(self._flags.sum())

    def __contains__(self, token: object) -> bool:
        return isinstance(token, int) and 0 <= token < len(self._flags) and bool(self._flags[token])

    def __iter__(self) -> Iterator[int]:
        return iter(np.flatnonzero(self._flags).tolist())

    def __len__(self) -> int:
        return self._count
