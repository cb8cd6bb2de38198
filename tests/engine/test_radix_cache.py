"""Slots: in any order of events none is lost and none is shared by mistake."""

from __future__ import annotations

import random
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from qwen_aio.engine.config import CACHED_TOKEN_BYTES
from qwen_aio.engine.kv.radix_cache import Lease, RadixCache

# Three tokens only, so that prefixes are often shared.
PROMPTS = st.lists(st.integers(0, 2), min_size=1, max_size=12)


def insert(cache: RadixCache, *ids: int) -> None:
    lease = cache.lease(ids, num_rows=len(ids))
    assert lease is not None
    cache.release(lease, ids)


def test_a_cached_prefix_is_shared_but_never_the_whole_prompt() -> None:
    cache = RadixCache(10)
    insert(cache, 1, 2, 3)
    lease = cache.lease([1, 2, 3], num_rows=3)
    assert lease is not None
    assert lease.num_shared == 2
    assert lease.slots[:2] == [node.slot for node in cache.match_prefix([1, 2])]
    assert lease.slots[2] != cache.match_prefix([1, 2, 3])[2].slot


def test_the_objects_of_a_cached_token_take_the_memory_that_is_counted_for_them() -> None:
    count, length = 10_000, 500
    cache, rng = RadixCache(count), random.Random(1)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for _ in range(count // length):
        insert(cache, *[rng.randrange(300, 150_000) for _ in range(length)])
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (after - before) / count == pytest.approx(CACHED_TOKEN_BYTES, rel=0.15)


def test_what_two_computed_at_once_is_kept_once() -> None:
    cache = RadixCache(10)
    leases = [cache.lease([1, 2, 3], num_rows=4) for _ in range(2)]
    for lease in leases:
        assert lease is not None
        cache.release(lease, [1, 2, 3])
    assert len(cache._free) == 7
    cache.check_integrity()


def test_the_least_recently_used_goes_first_and_whole() -> None:
    cache = RadixCache(6)
    insert(cache, 1, 1, 1)
    insert(cache, 2, 2, 2)
    insert(cache, 1, 1, 1)  # used again
    lease = cache.lease([3, 3], num_rows=2)
    assert lease is not None
    assert len(cache.match_prefix([2, 2, 2])) == 0
    assert len(cache.match_prefix([1, 1, 1])) == 3


def test_a_short_cached_prefix_is_computed_again() -> None:
    cache = RadixCache(12, min_shared=3)
    insert(cache, 1, 2, 3)
    short, long = cache.lease([1, 2, 9], num_rows=3), cache.lease([1, 2, 3, 9], num_rows=4)
    assert short is not None and long is not None
    assert (short.num_shared, long.num_shared) == (0, 3)
    cache.release(short, [1, 2, 9])
    cache.release(long, [1, 2, 3, 9])
    cache.check_integrity()


@given(runs=st.lists(st.integers(1, 5), min_size=1, max_size=6), start=st.integers(0, 20), stop=st.integers(0, 20))
def test_a_part_of_a_lease_is_cut_into_runs_of_neighbours(runs: list[int], start: int, stop: int) -> None:
    slots = [10 * number + at for number, length in enumerate(runs) for at in range(length)]
    part = Lease([], slots).runs_of(start, stop)
    assert [slot for run in part for slot in run] == slots[start:stop]
    assert all(left.stop < right.start for left, right in pairwise(part))


def test_what_is_in_use_is_not_evicted() -> None:
    cache = RadixCache(4)
    insert(cache, 1, 1)
    lease = cache.lease([1, 2], num_rows=2)
    assert lease is not None
    assert cache.num_available == 2
    assert cache.lease([3, 3, 3], num_rows=3) is None
    cache.release(lease, [1])
    assert cache.lease([3, 3, 3], num_rows=3) is not None


def test_what_was_not_computed_is_not_inserted() -> None:
    cache = RadixCache(8)
    lease = cache.lease([1, 2, 3, 4], num_rows=6)
    assert lease is not None
    cache.release(lease, [1, 2])
    assert len(cache.match_prefix([1, 2, 3, 4])) == 2
    assert len(cache._free) == 6


def test_a_pin_outlives_everything() -> None:
    cache = RadixCache(6)
    insert(cache, 1, 2)
    cache.pin([1, 2])
    cache.pin([1, 2])
    assert cache.num_pinned == 2
    for token in range(3, 9):
        insert(cache, *[token] * 4)
    assert len(cache.match_prefix([1, 2])) == 2
    assert cache.lease([9] * 5, num_rows=5) is None


def test_its_repr_names_the_parts() -> None:
    cache = RadixCache(9)
    insert(cache, 1, 2)
    cache.lease([5], num_rows=3)
    assert repr(cache) == "<RadixCache 4 free, 2 cached, 3 leased of 9>"


class RadixCacheMachine(RuleBasedStateMachine):
    """Any order of leases, releases and pins."""

    @initialize(num_slots=st.integers(4, 40))
    def start(self, num_slots: int) -> None:
        self.cache = RadixCache(num_slots)
        self.leases: list[tuple[Lease, list[int]]] = []
        self.pinned: list[list[int]] = []

    @rule(ids=PROMPTS, num_more=st.integers(0, 6))
    def lease(self, ids: list[int], num_more: int) -> None:
        num_rows = len(ids) + num_more
        known = len(self.cache.match_prefix(ids[:-1]))
        available = self.cache.num_available
        lease = self.cache.lease(ids, num_rows=num_rows)
        if lease is None:
            assert num_rows > available  # refused only when memory is really short
            return
        assert len(lease.slots) == len(set(lease.slots)) == num_rows
        assert lease.num_shared == known < len(ids)
        self.leases.append((lease, ids))

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        if self.leases:
            lease, ids = self.leases.pop(data.draw(st.integers(0, len(self.leases) - 1)))
            # It may have generated some, or have been aborted halfway.
            grown = ids + data.draw(st.lists(st.integers(0, 2), max_size=len(lease.slots) - len(ids)))
            computed = grown[: data.draw(st.integers(lease.num_shared, len(grown)))]
            self.cache.release(lease, computed)
            assert len(self.cache.match_prefix(computed)) == len(computed)

    @rule(ids=PROMPTS)
    def pin(self, ids: list[int]) -> None:
        if self.cache.num_to_pin(ids) <= self.cache.num_slots // 4:
            known = ids[: len(self.cache.match_prefix(ids))]
            self.cache.pin(known)
            self.pinned.append(known)

    @invariant()
    def every_slot_is_in_one_place(self) -> None:
        self.cache.check_integrity()

    @invariant()
    def no_two_own_the_same_slot(self) -> None:
        own = [slot for lease, _ in self.leases for slot in lease.own_slots]
        assert len(own) == len(set(own))

    @invariant()
    def pins_hold(self) -> None:
        assert all(len(self.cache.match_prefix(ids)) == len(ids) for ids in self.pinned)

    def teardown(self) -> None:
        if not hasattr(self, "cache"):
            return
        for lease, ids in self.leases:
            self.cache.release(lease, ids)
        assert self.cache.num_available == self.cache.num_slots - self.cache.num_pinned
        self.cache.check_integrity()


TestRadixCache = RadixCacheMachine.TestCase
TestRadixCache.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_a_lost_slot_is_noticed() -> None:
    cache = RadixCache(5)
    cache._free.take(1)
    with pytest.raises(AssertionError):
        cache.check_integrity()
