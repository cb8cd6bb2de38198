"""The continuations of a decision as one tree of tokens, so that what they share is computed once.

For the continuations A B C, A B D and E the tree's rows are A and A-B: a row for every token that another one follows.
The last tokens need no row, only their probability after the row before them. Rows are numbered from 0 (the first one
after the prompt); the prompt's last row, which comes before them all, is `None`. Knows no torch and no text.
"""

from __future__ import annotations

from collections.abc import Sequence


class LabelTree:
    """Immutable after construction."""

    def __init__(self, continuations: Sequence[Sequence[int]]) -> None:
        """`continuations` are token ids, at least one each."""
        self.tokens: list[int] = []  # of each row
        self.parents: list[int | None] = []  # of each row; a parent stands before its children
        self.depths: list[int] = []  # of each row, 0 for the first token of a continuation
        self._row_of: dict[tuple[int | None, int], int] = {}
        # For each continuation: the row each of its tokens follows, and the token.
        self.steps = [self._walk(continuation) for continuation in continuations]
        self._after: dict[int | None, set[int]] = {}
        for before, token in (step for steps in self.steps for step in steps):
            self._after.setdefault(before, set()).add(token)

    @property
    def num_rows(self) -> int:
        return len(self.tokens)

    def ancestors(self, row: int) -> list[int]:
        """The row itself and the rows above it: all of the tree that it may see."""
        seen = []
        at: int | None = row
        while at is not None:
            seen.append(at)
            at = self.parents[at]
        return seen

    def tokens_after(self, row: int | None) -> list[int]:
        """The tokens whose probability is wanted after `row`."""
        return sorted(self._after[row])

    def _walk(self, continuation: Sequence[int]) -> list[tuple[int | None, int]]:
        steps: list[tuple[int | None, int]] = []
        row: int | None = None
        for position, token in enumerate(continuation):
            steps.append((row, token))
            if position < len(continuation) - 1:
                row = self._row(row, token, depth=position)
        return steps

    def _row(self, parent: int | None, token: int, *, depth: int) -> int:
        known = self._row_of.get((parent, token))
        if known is not None:
            return known
        self.tokens.append(token)
        self.parents.append(parent)
        self.depths.append(depth)
        self._row_of[parent, token] = len(self.tokens) - 1
        return len(self.tokens) - 1
