"""Caches of computed prompts, kept for prompts that begin alike: pinned ones for ever, others until room is needed.

Knows no model but for how it copies a cache. Owned by the engine thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from transformers import DynamicCache

CopyCache = Callable[[DynamicCache, int], DynamicCache]
MIN_REUSED = 8  # tokens: a copy costs about as much as computing so few


@dataclass(frozen=True, eq=False)
class _Kept:
    ids: tuple[int, ...]  # as many as the cache holds
    cache: DynamicCache


class KeptPrefixes:
    """Bounded by its owner: `shrink` says how many tokens may stay."""

    def __init__(self, *, can_crop: bool, copy_cache: CopyCache) -> None:
        """`can_crop`: whether the beginning of a cache can be had; else it is taken whole or not at all."""
        self._can_crop = can_crop
        self._copy_cache = copy_cache
        self._pinned: list[_Kept] = []
        self._recent: list[_Kept] = []  # the least recently used first

    @property
    def num_pinned(self) -> int:
        """Tokens."""
        return sum(len(kept.ids) for kept in self._pinned)

    @property
    def num_recent(self) -> int:
        """Tokens."""
        return sum(len(kept.ids) for kept in self._recent)

    def pin(self, ids: Sequence[int], cache: DynamicCache) -> None:
        """Keep for ever; nothing more if it is pinned already."""
        if not self.is_pinned(ids):
            self._pinned.append(_Kept(tuple(ids), cache))

    def is_pinned(self, ids: Sequence[int]) -> bool:
        return any(kept.ids == tuple(ids) for kept in self._pinned)

    def keep(self, ids: Sequence[int], cache: DynamicCache) -> None:
        """Keep until room is needed, in the place of what it begins with."""
        self._recent = [kept for kept in self._recent if kept.ids != tuple(ids[: len(kept.ids)])]
        self._recent.append(_Kept(tuple(ids), cache))

    def begun(self, ids: Sequence[int]) -> tuple[DynamicCache, int] | None:
        """A copy of what is kept of the beginning of `ids`, and its number of tokens: at least one is left."""
        best, length = None, MIN_REUSED - 1
        for kept in (*self._pinned, *self._recent):
            num_usable = min(_num_alike(kept.ids, ids), len(ids) - 1)
            if num_usable > length and (self._can_crop or num_usable == len(kept.ids)):
                best, length = kept, num_usable
        if best is None:
            return None
        if best in self._recent:
            self._recent.remove(best)
            self._recent.append(best)
        return self._copy_cache(best.cache, length), length

    def shrink(self, num_tokens: int) -> None:
        """Forget the least recently used until no more than `num_tokens` are left, beside the pinned ones."""
        while self._recent and self.num_recent > num_tokens:
            del self._recent[0]


def _num_alike(kept: Sequence[int], ids: Sequence[int]) -> int:
    pairs = enumerate(zip(kept, ids, strict=False))
    return next((place for place, (one, other) in pairs if one != other), min(len(kept), len(ids)))
