"""Free slots, kept as runs of neighbours: neighbouring rows are read without copying.

Knows numbers only. Owned by RadixCache.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator


class FreeSlots:
    """A set of slots that gives out neighbours where possible."""

    def __init__(self, count: int) -> None:
        """The slots 0 .. count."""
        self._ends = {0: count} if count else {}  # first slot of each run -> the slot after it
        self._starts = {count: 0} if count else {}  # the inverse
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        for start, end in self._ends.items():
            yield from range(start, end)

    def take(self, count: int) -> list[int]:
        """`count` slots, of one run if one is long enough. There must be as many."""
        assert count <= self._count
        taken: list[int] = []
        while len(taken) < count:
            wanted = count - len(taken)
            start = min(self._ends, key=lambda start: self._misfit(self._ends[start] - start, wanted))
            end = self._remove(start)
            stop = min(end, start + wanted)
            taken.extend(range(start, stop))
            self._insert(stop, end)
        return taken

    def give(self, slots: Iterable[int]) -> None:
        """Return slots that were taken."""
        for slot in slots:
            end = self._remove(slot + 1) if slot + 1 in self._ends else slot + 1
            start = self._starts.get(slot, slot)
            if start != slot:
                self._remove(start)
            self._insert(start, end)

    def _insert(self, start: int, end: int) -> None:
        if start < end:
            self._ends[start] = end
            self._starts[end] = start
            self._count += end - start

    def _remove(self, start: int) -> int:
        end = self._ends.pop(start)
        del self._starts[end]
        self._count -= end - start
        return end

    @staticmethod
    def _misfit(length: int, wanted: int) -> tuple[bool, int]:
        """Best fit: the shortest run that is long enough, else the longest one."""
        return (False, length) if length >= wanted else (True, -length)
