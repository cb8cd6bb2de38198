"""A set of token ids as flags: a frozenset of a whole vocabulary takes a hundred times as much memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from typing import TypeVar

import numpy as np

T = TypeVar("T")


class TokenSet(Set[int]):
    """Immutable."""

    def __init__(self, ids: Iterable[int]) -> None:
        members = np.fromiter(ids, np.int64)
        self._flags = np.zeros(int(members.max(initial=-1)) + 1, bool)
        self._flags[members] = True
        self._count = int(self._flags.sum())

    @classmethod
    def _from_iterable(cls, it: Iterable[T]) -> Set[T]:
        """What `-`, `|` and the like give: of ids that may be anything."""
        return frozenset(it)

    def __contains__(self, token: object) -> bool:
        return isinstance(token, int) and 0 <= token < len(self._flags) and bool(self._flags[token])

    def __iter__(self) -> Iterator[int]:
        return iter(np.flatnonzero(self._flags).tolist())

    def __len__(self) -> int:
        return self._count
