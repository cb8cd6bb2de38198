"""The order of the queue."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_aio.balancer.cost.queue import QueuedRequest, RequestQueue
from qwen_aio.balancer.params import PARAMS
from qwen_aio.core import EngineRequest


def queued(number: int, *, work_s: float = 0.1, arrived: float = 0.0, is_returned: bool = False) -> QueuedRequest:
    call = EngineRequest(f"r{number}", "sentiment", "text")
    return QueuedRequest(number, call, "decision", work_s, arrived, arrived + 60.0, is_returned=is_returned)


def queue_of(*requests: QueuedRequest) -> RequestQueue:
    made = RequestQueue(PARAMS)
    for each in requests:
        made.add(each)
    return made


def numbers(queue: RequestQueue, *, now: float) -> list[int]:
    return [each.number for each in queue.in_order(now)]


def test_short_goes_before_long():
    assert numbers(queue_of(queued(1, work_s=8.0), queued(2, work_s=0.1)), now=0.0) == [2, 1]


def test_of_two_alike_the_first_to_come_is_first():
    assert numbers(queue_of(*(queued(number) for number in (3, 1, 2))), now=5.0) == [1, 2, 3]


def test_a_second_of_waiting_makes_up_for_a_quarter_second_of_work():
    old, new = queued(1, work_s=2.0, arrived=0.0), queued(2, work_s=0.1, arrived=8.0)
    assert numbers(queue_of(old, new), now=8.0) == [1, 2]  # 2.0 - 8 / 4 = 0.0
    slightly_newer = replace(old, arrived=0.5)
    assert numbers(queue_of(slightly_newer, new), now=8.0) == [2, 1]


def test_beyond_thirty_seconds_the_oldest_is_first_however_long_it_is():
    huge, middling, fresh = (
        queued(1, work_s=500.0),
        queued(2, work_s=20.0, arrived=1.0),
        queued(3, work_s=0.01, arrived=30.9),
    )
    assert numbers(queue_of(fresh, middling, huge), now=31.0) == [1, 2, 3]


def test_a_request_that_lost_its_worker_is_first():
    returned = queued(9, work_s=50.0, arrived=30.0, is_returned=True)
    assert numbers(queue_of(queued(1), queued(2, work_s=0.001), returned), now=40.0)[0] == 9


def test_removing_twice_does_no_harm():
    first, second = queued(1), queued(2)
    queue = queue_of(first, second)
    queue.remove(first)
    queue.remove(first)
    assert numbers(queue, now=0.0) == [2]


def test_the_work_of_an_empty_queue_is_exactly_nothing():
    requests = [queued(number, work_s=0.1 * number) for number in range(10)]
    queue = queue_of(*requests)
    assert queue.work_s == pytest.approx(4.5)
    for each in requests:
        queue.remove(each)
    assert (len(queue), queue.work_s) == (0, 0)


@given(works_s=st.lists(st.floats(0.001, 0.2), max_size=200), long_s=st.floats(0.01, 100))
def test_no_request_starves_however_many_short_ones_keep_coming(works_s: list[float], long_s: float):
    """Every second the first one leaves and two come."""
    queue, long_one = queue_of(), queued(0, work_s=long_s)
    queue.add(long_one)
    now, left = 0.0, None
    while left is not long_one:
        left = queue.in_order(now)[0]
        queue.remove(left)
        now += 1.0
        for work_s in works_s[2 * int(now) : 2 * int(now) + 2]:
            queue.add(queued(int(now), work_s=work_s, arrived=now))
        assert now <= PARAMS.oldest_first_after_s + 2
