"""The index finds what a search through the whole text finds."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from qwen_aio.engine.scheduling.prompt_lookup import LENGTHS, PromptLookup


def searched(ids: Sequence[int], max_tokens: int) -> list[int]:
    """The same by full search: the latest occurrence of the last tokens, long n-grams first."""
    for length in LENGTHS:
        for end in range(len(ids) - 1, length - 1, -1):
            if list(ids[end - length : end]) == list(ids[-length:]):
                draft = list(ids)
                for _ in range(max_tokens):
                    draft.append(draft[end])
                    end += 1
                return draft[len(ids) :]
    return []


@given(
    parts=st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=12), min_size=1, max_size=8),
    max_tokens=st.integers(0, 9),
)
def test_what_it_proposes_is_what_a_search_finds_however_the_text_grows(
    parts: list[list[int]], max_tokens: int
) -> None:
    lookup, ids = PromptLookup(), list[int]()
    for part in parts:
        ids.extend(part)
        assert lookup.propose(ids, max_tokens=max_tokens) == searched(ids, max_tokens)


def test_a_long_n_gram_goes_before_a_short_one_and_the_latest_before_the_first() -> None:
    ids = [1, 2, 3, 40, 1, 2, 3, 41, 9, 2, 3, 42, 1, 2, 3]
    assert PromptLookup().propose(ids, max_tokens=2) == [41, 9]


def test_a_text_that_goes_round_is_proposed_to_go_on_so() -> None:
    assert PromptLookup().propose([7, 1, 2, 1, 2, 1], max_tokens=5) == [2, 1, 2, 1, 2]


def test_where_nothing_stood_before_nothing_is_proposed() -> None:
    for ids in ([], [1], [1, 1], [1, 2, 3, 4, 2]):
        assert PromptLookup().propose(ids, max_tokens=4) == []
