"""Continuations as a tree: a shared beginning has one row."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qwen_aio.engine.scheduling.label_tree import LabelTree

CONTINUATIONS = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=6), min_size=1, max_size=8)


def test_labels_of_one_token_need_no_row() -> None:
    tree = LabelTree([[5], [6], [7]])
    assert tree.num_rows == 0
    assert tree.tokens_after(None) == [5, 6, 7]


def test_a_shared_first_token_has_one_row() -> None:
    tree = LabelTree([[1, 2, 3], [1, 2, 4], [1], [9]])
    assert tree.tokens == [1, 2]
    assert tree.tokens_after(None) == [1, 9]
    assert tree.tokens_after(1) == [3, 4]
    assert tree.ancestors(1) == [1, 0]


@given(CONTINUATIONS)
def test_every_row_sees_exactly_the_tokens_before_it(continuations: list[list[int]]) -> None:
    tree = LabelTree(continuations)
    for steps, continuation in zip(tree.steps, continuations, strict=True):
        assert [token for _, token in steps] == continuation
        for position, (row, token) in enumerate(steps):
            assert token in tree.tokens_after(row)
            before = [] if row is None else [tree.tokens[at] for at in reversed(tree.ancestors(row))]
            assert before == continuation[:position]
            assert row is None or tree.depths[row] == position - 1
    prefixes = {tuple(each[:end]) for each in continuations for end in range(1, len(each))}
    assert tree.num_rows == len(prefixes)
