"""What is counted when workers are asked, and what is not."""

from __future__ import annotations

import asyncio

import pytest

from qwen_aio.errors import EngineStopped, QueueFull
from qwen_aio.tuning.measure import Tally, Throughput, measure, rate
from tests.fakes import FakeClock, FakeEngine
from tests.served import TASKS, Worker, served


def test_a_rate_ends_with_the_last_unit():
    clock = FakeClock()
    tally = Tally(clock)
    for _ in range(3):
        clock.advance(0.5)
        tally.add(8)
    clock.advance(0.4)  # the next eight would have come in a moment
    assert tally.per_s == pytest.approx(16.0)


def test_the_score_is_the_geometric_mean_of_what_there_is():
    assert Throughput(4.0, 9.0, 1.0).score == pytest.approx(6.0)
    assert Throughput(None, 9.0, None).score == pytest.approx(9.0)
    assert str(Throughput(4.0, None, 1.5)) == "4.0 decisions/s, 1.5 ms for one decision"


async def test_at_least_one_unit_for_each_caller_is_waited_for():
    gate = asyncio.Event()
    called = 0

    async def call(tally: Tally) -> None:
        nonlocal called
        called += 1
        if called == 3:
            gate.set()
        await gate.wait()
        tally.add(1)
        await asyncio.Event().wait()

    assert await rate(3, call, seconds=0.0) > 0
    assert called == 3


async def test_the_first_units_are_awaited_and_do_not_count():
    seen: list[int] = []

    async def call(tally: Tally) -> None:
        seen.append(tally.units)
        tally.add(1)
        await asyncio.sleep(0)

    assert await rate(1, call, seconds=0.0, first_units=5) > 0
    assert seen.index(0, 1) >= 5  # counting began again


async def test_a_failure_ends_the_measurement():
    async def call(tally: Tally) -> None:
        raise QueueFull("full")

    with pytest.raises(QueueFull):
        await rate(3, call, seconds=60.0)


async def test_workers_are_asked_in_turn_for_decisions_and_answers():
    first, second = Worker(FakeEngine()), Worker(FakeEngine())
    async with served(first) as one, served(second) as other:
        speed = await measure([one.url, other.url], TASKS, seconds=0.3)
    assert speed.score > 0
    assert speed.decisions_per_s
    assert speed.tokens_per_s
    texts = [str(prompt) for worker in (first, second) for prompt in worker.engine.prompts]
    assert len(set(texts)) == len(texts)
    assert abs(len(first.engine.prompts) - len(second.engine.prompts)) <= 14  # one call of each caller


async def test_tasks_of_one_kind_alone_are_enough():
    worker = Worker(FakeEngine())
    async with served(worker) as one:
        chat = await measure([one.url], {"chat": TASKS["chat"]}, seconds=0.1)
        sentiment = await measure([one.url], {"sentiment": TASKS["sentiment"]}, seconds=0.1)
    assert (chat.decisions_per_s, chat.one_decision_ms) == (None, None)
    assert sentiment.tokens_per_s is None


async def test_what_a_worker_refuses_is_raised():
    worker = Worker(FakeEngine(error=EngineStopped("it has ended")))
    async with served(worker) as one:
        with pytest.raises(EngineStopped, match="it has ended"):
            await measure([one.url], TASKS, seconds=0.1)
