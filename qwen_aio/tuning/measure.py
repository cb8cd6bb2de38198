"""Measures workers: clients send them requests in turn and count what comes back.

    alone        one client, one decision after another     milliseconds of one
    decisions    eight clients at once                      decisions per second
    answers      eight answers at once                      tokens per second

Every text is a new one, which no worker has in its cache. Knows addresses, not what listens there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import astuple, dataclass
from functools import partial
from itertools import count, cycle
from statistics import geometric_mean, median

from qwen_aio.client.async_client import AsyncClient
from qwen_aio.core import EngineRequest, SamplingWish, Task, TaskKind
from qwen_aio.result import Decision, TextDelta
from qwen_aio.serving.interruption import cancel

NUM_DECIDING, NUM_ANSWERED = 8, 8
ALONE_SHARE, DECISIONS_SHARE, ANSWERS_SHARE = 0.15, 0.4, 0.45  # of the time
FEWEST_ALONE = 3
LOOK_S = 0.02
MAX_TOKENS = 64
TEXTS = (
    "快递太慢了,差评!",
    "刚收到货,颜色和图片不太一样,有点小失望",
    "The room was clean and the staff were kind, I would come again.",
    "味道很好,服务也热情,下次还会带朋友来",
    "包装破了一个角,联系客服等了两天才有人回,最后只退了运费。东西本身还可以用,但这样的购物体验实在说不上愉快,希望以后能改进。",
)


@dataclass(frozen=True)
class Throughput:
    """None where there is no task of that kind."""

    decisions_per_s: float | None
    tokens_per_s: float | None
    one_decision_ms: float | None

    @property
    def score(self) -> float:
        """The geometric mean of the rates; larger is better."""
        return geometric_mean(rate for rate in (self.decisions_per_s, self.tokens_per_s) if rate is not None)

    def __str__(self) -> str:
        values = zip(astuple(self), ("decisions/s", "tokens/s", "ms for one decision"), strict=True)
        return ", ".join(f"{value:.1f} {unit}" for value, unit in values if value is not None)


async def measure(urls: Sequence[str], tasks: Mapping[str, Task], *, seconds: float) -> Throughput:
    """Use the workers at `urls` for `seconds`, and a little more.

    Raises their errors and ServerUnreachable.
    """
    deciding, answering = first_of_kind(tasks, "decision"), first_of_kind(tasks, "generation")
    async with AsyncExitStack() as stack:
        load = Load([await stack.enter_async_context(AsyncClient(url)) for url in urls])
        alone = decisions = tokens = None
        if deciding is not None:
            alone = await _alone(load, deciding, seconds=seconds * ALONE_SHARE)
            decisions = await rate(NUM_DECIDING, partial(load.ask, deciding), seconds=seconds * DECISIONS_SHARE)
        if answering is not None:
            tokens = await rate(
                NUM_ANSWERED,
                partial(load.ask, answering),
                seconds=seconds * ANSWERS_SHARE,
                first_units=NUM_ANSWERED,  # a short time would show the prefill alone
            )
        return Throughput(decisions, tokens, alone)


def first_of_kind(tasks: Mapping[str, Task], kind: TaskKind) -> str | None:
    """The task to measure; None if there is none of this kind."""
    return next((name for name, task in sorted(tasks.items()) if task.kind == kind), None)


class Tally:
    """Counts units, and notes when the last one came."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.restart()

    def restart(self) -> None:
        self._started_at = self._last_at = self._clock()
        self.units = 0

    def add(self, units: int) -> None:
        self.units += units
        self._last_at = self._clock()

    @property
    def per_s(self) -> float:
        """Up to the last unit: the time of units that are unfinished at the end does not count."""
        return self.units / max(self._last_at - self._started_at, 1e-9)


async def rate(
    num_callers: int, call: Callable[[Tally], Awaitable[None]], *, seconds: float, first_units: int = 0
) -> float:
    """Units per second while `num_callers` repeat `call`, at least one unit for each.

    Raises what a call raises. The `first_units` do not count.
    """
    tally = Tally()

    async def caller() -> None:
        while True:
            await call(tally)

    callers = [asyncio.create_task(caller()) for _ in range(num_callers)]
    try:
        await _reached(tally, first_units, callers)
        tally.restart()
        await asyncio.wait(callers, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
        await _reached(tally, num_callers, callers)
    finally:
        for task in callers:
            await cancel(task)
    return tally.per_s


async def _reached(tally: Tally, units: int, callers: Sequence[asyncio.Task[None]]) -> None:
    """Wait for so many units. Raises the error of a caller."""
    while tally.units < units and not any(task.done() for task in callers):
        await asyncio.wait(callers, timeout=LOOK_S, return_when=asyncio.FIRST_EXCEPTION)
    for task in callers:
        if task.done():
            task.result()


class Load:
    """Engine requests, each with a text of its own, to one worker after another."""

    def __init__(self, clients: Sequence[AsyncClient]) -> None:
        self._clients = cycle(clients)
        self._numbers = count(1)

    async def ask(self, task: str, tally: Tally) -> None:
        """Count a decision as one unit, or the tokens of an answer as they come."""
        number = next(self._numbers)
        text = f"{number}. {TEXTS[number % len(TEXTS)]}"
        wish = SamplingWish(max_tokens=MAX_TOKENS, seed=number)
        request = EngineRequest(f"tune-{number}", task, text, sampling=wish)
        async with aclosing(next(self._clients).execute(request)) as events:
            async for event in events:
                if isinstance(event, Decision):
                    tally.add(1)
                elif isinstance(event, TextDelta):
                    tally.add(len(event.token_ids))


async def _alone(load: Load, task: str, *, seconds: float) -> float:
    """Median milliseconds of a decision."""
    times_ms: list[float] = []
    started_at = time.monotonic()
    while len(times_ms) < FEWEST_ALONE or time.monotonic() - started_at < seconds:
        sent_at = time.monotonic()
        await load.ask(task, Tally())
        times_ms.append((time.monotonic() - sent_at) * 1000)
    return median(times_ms)
