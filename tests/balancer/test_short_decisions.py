"""Short decisions through the balancer while long ones and answers hold every slot they can get."""

import asyncio
from collections.abc import Sequence

import pytest

from qwen_aio.core import Prompt, Request
from qwen_aio.result import Scores
from tests.balancer.balanced import balanced
from tests.fakes import FakeEngine, user_text

LONG_TEXT = "这本书很长。" * 400


class SlowReader(FakeEngine):
    """Decides short texts at once; long ones, like answers, when the gate opens."""

    async def score(self, request_id: str, prompt: Prompt, continuations: Sequence[str]) -> Scores:
        gate, self.gate = self.gate, None
        scores = await super().score(request_id, prompt, continuations)
        self.gate = gate
        if gate and len(user_text(prompt)) >= len(LONG_TEXT):
            await self._wait(gate.wait)
        return scores


def ask(service, text: str, mode: str = "sentiment") -> asyncio.Task:
    return asyncio.create_task(service.client.run(Request(text, mode=mode)))


async def decide_short_texts(service, count: int) -> None:
    for number in range(count):
        await service.client.run(Request(f"{number} 快递太慢了", mode="sentiment"))


@pytest.mark.parametrize(("num_answers", "long_in_flight"), [(0, 8), (12, 2)])
async def test_short_decisions_pass_long_ones_and_answers(tmp_path, num_answers: int, long_in_flight: int):
    """Two workers of eight slots; the queue is full, so that a short one that had to wait would be refused."""
    gate = asyncio.Event()
    workers = {name: SlowReader(gate=gate, pieces=("好", "的")) for name in "ab"}
    async with balanced(workers, tmp_path, max_queue=10) as service:
        asking = [ask(service, "hi", "chat") for _ in range(num_answers)]
        await service.until(lambda: service.balancer.snapshot().in_flight == num_answers)
        asking += [ask(service, f"{number} {LONG_TEXT}") for number in range(long_in_flight + 10)]
        await service.until(lambda: service.balancer.snapshot().waiting == 10)
        assert service.balancer.snapshot().in_flight == num_answers + long_in_flight
        await decide_short_texts(service, 20)
        gate.set()
        await asyncio.gather(*asking)
        service.assert_quiet()


async def test_short_decisions_pass_long_ones_that_come_first_since_they_lost_their_worker(tmp_path):
    gate = asyncio.Event()
    async with balanced({name: SlowReader(gate=gate) for name in "ab"}, tmp_path) as service:
        asking = [ask(service, f"{number} {LONG_TEXT}") for number in range(10)]
        await service.until(lambda: service.paths["a"].calls == service.paths["b"].calls == 4)
        service.paths["b"].kill()
        await service.until(lambda: service.balancer.snapshot().waiting == 6)
        await decide_short_texts(service, 5)
        gate.set()
        await asyncio.gather(*asking)
        service.assert_quiet()
