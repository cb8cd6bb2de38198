"""Free slots come as few runs of neighbours, and none is lost or given out twice."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from qwen_aio.engine.kv.free_slots import FreeSlots


def num_runs(slots: list[int]) -> int:
    return 1 + sum(right != left + 1 for left, right in pairwise(slots))


def test_the_shortest_run_that_is_long_enough_is_taken() -> None:
    free = FreeSlots(20)
    taken = free.take(20)
    free.give(taken[2:8])
    free.give(taken[10:14])
    assert free.take(3) == [10, 11, 12]
    assert free.take(6) == [2, 3, 4, 5, 6, 7]


def test_neighbours_that_come_back_apart_are_one_run_again() -> None:
    free = FreeSlots(6)
    taken = free.take(6)
    for slot in (taken[1], taken[3], taken[2], taken[0], taken[5], taken[4]):
        free.give([slot])
    assert num_runs(free.take(6)) == 1


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 12)), max_size=40))
def test_whatever_is_taken_and_given_back_every_slot_is_in_one_place(steps: list[tuple[bool, int]]) -> None:
    free, held = FreeSlots(24), []
    for is_taking, number in steps:
        if is_taking and number <= len(free):
            longest = max((len(run) for run in runs_of(sorted(free))), default=0)
            taken = free.take(number)
            assert len(taken) == number
            assert number == 0 or number > longest or num_runs(taken) == 1
            held.append(taken)
        elif held:
            free.give(held.pop(number % len(held)))
        assert sorted([*free, *(slot for taken in held for slot in taken)]) == list(range(24))


def runs_of(slots: list[int]) -> list[list[int]]:
    runs: list[list[int]] = []
    for slot in slots:
        if runs and runs[-1][-1] == slot - 1:
            runs[-1].append(slot)
        else:
            runs.append([slot])
    return runs
