"""The continuations of a decision as one tree of tokens: shared beginnings are computed once.

For the continuations A B C, A B D and E the tree's rows are A and A-B: one row for every token that
another token follows. A last token needs no row, only its probability after the row before it. Rows
are numbered from 0, the first one after the prompt; `None` is the prompt's last row, the root.
Knows no torch and no text.
"""

from __future__ import annotations

from collections import abc


class LabelTree:
    """Immutable after construction."""

    def __init__(self, continuations: abc.Sequence[abc.Sequence[int]]) -> None:
        """`continuations` are token ids, at least one each."""
        self.tokens: list[int] = []  # of each row
        self.parents: list[int | None] = []  # of each row; a parent stands before its children
        self.depths: list[int] = []  # of each row, 0 for the first token of a continuation
        self._row_of: dict[tuple[int | None, int], int] = {}
        # Of each continuation: (the row that the token follows, the token) for each of its tokens.
        self.steps = [self._walk(continuation) for continuation in continuations]
        self._after: dict[int | None, set[int]] = {}
        for before, token in (step for steps in self.steps for step in steps):
            self._after.setdefault(before, set()).add(token)

    @property
    def num_rows(self) -> int:
        return len(self.tokens)

    def ancestors(self, row: int) -> list[int]:
        """The row itself and the rows above it: all of the tree that it attends to."""
        path = []
        at: int | None = row
        while at is not None:
            path.append(at)
            at = self.parents[at]
        return path

    def tokens_after(self, row: int | None) -> list[int]:
        """The tokens whose probability after `row` is needed."""
        return sorted(self._after[row])

    def _walk(self, continuation: abc.Sequence[int]) -> list[tuple[int | None, int]]:
        steps: list[tuple[int | None, int]] = []
        row: int | None = None
        for token in continuation[:-1]:
            steps.append((row, token))
            row = self._row(row, token)
        return [*steps, (row, continuation[-1])]

    def _row(self, parent: int | None, token: int) -> int:
        """The row of `token` after `parent`, a new one if there is none."""
        row = self._row_of.setdefault((parent, token), len(self.tokens))
        if row == len(self.tokens):
            self.tokens.append(token)
            self.parents.append(parent)
            self.depths.append(0 if parent is None else self.depths[parent] + 1)
        return row
