"""Flags of token ids behave as the set of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qwen_aio.engine.text.token_set import TokenSet

ids = st.sets(st.integers(0, 500))


@given(ids, ids)
def test_it_is_the_set_of_its_ids(some: set[int], others: set[int]) -> None:
    tokens = TokenSet(some)
    assert sorted(tokens) == sorted(some) and len(tokens) == len(some)
    assert all((token in tokens) == (token in some) for token in range(-2, 502))
    assert set(tokens | others) == some | others
    assert {-5, 10**30, *others} - tokens == {-5, 10**30, *others} - some
    assert tokens == some


def test_what_is_no_id_is_not_in_it() -> None:
    assert "1" not in TokenSet([1]) and 10**30 not in TokenSet([1]) and -1 not in TokenSet([0])
