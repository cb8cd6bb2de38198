"""Whatever happens to workers, in whatever order: each request has one outcome, and nothing of it stays behind.

QWEN_AIO_CAMPAIGN=1 pytest tests/balancer/test_chaos.py   # many more seeds, longer scripts
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from random import Random

import pytest

from qwen_aio.balancer.params import Params
from qwen_aio.core import Request
from qwen_aio.errors import AnswerBroken, EngineStopped, NoWorker, PoisonRequest, QueueFull, QwenAioError
from qwen_aio.result import Done, Event, TextDelta
from tests.balancer.balanced import HASTY, PATIENT, Service, balanced
from tests.balancer.chaos import Fault
from tests.balancer.test_remote_executor import EMPTY_200, ENDLESS, ERROR_500, GARBAGE, NO_TOKEN, PIECES, STORY
from tests.campaign import CAMPAIGN
from tests.fakes import FakeEngine

SEEDS, STEPS = (range(60), 150) if CAMPAIGN else (range(4), 40)
NAMES = "abc"
PIECE_S = 0.002  # so that answers overlap with what happens to their workers
# Nobody is to blame but the state of the service; PoisonRequest is the one 500 there may be.
HONEST = (NoWorker, QueueFull, AnswerBroken, EngineStopped, PoisonRequest)


class Unhurried(FakeEngine):
    """One that takes its time for every piece."""

    async def generate(self, request_id, prompt, sampling, **more):
        async with aclosing(super().generate(request_id, prompt, sampling, **more)) as chunks:
            async for chunk in chunks:
                await asyncio.sleep(PIECE_S)
                yield chunk


@dataclass
class Asked:
    """One request and what has come of it."""

    request: Request
    is_streamed: bool
    texts: list[str] = field(default_factory=list)
    task: asyncio.Task[None] = field(init=False)

    async def ask(self, service: Service) -> None:
        if not self.is_streamed:
            self._end(Done(await service.client.run(self.request)))
            return
        last: Event | None = None
        async with aclosing(service.client.stream(self.request)) as events:
            async for last in events:
                if isinstance(last, TextDelta):
                    assert last.index == len(self.texts)
                    self.texts.append(last.text)
                    assert STORY.startswith("".join(self.texts))
        self._end(last)

    def _end(self, last: Event | None) -> None:
        assert isinstance(last, Done)
        if last.result.answer:
            assert last.result.answer.text == STORY
            assert last.result.answer.usage.completion_tokens == len(PIECES)
            assert not self.is_streamed or "".join(self.texts) == STORY
        else:
            assert last.result.decision.label == "negative"
        assert not self.request.reply or (last.result.answer and last.result.decision)


class Chaos:
    """A script of random steps. Nothing in it waits for time: it goes on when requests do."""

    def __init__(self, service: Service, seed: int) -> None:
        self.service = service
        self.random = Random(seed)
        self.asked: list[Asked] = []
        self.dead: set[str] = set()

    # ---- what happens to workers ----

    def break_some_bytes(self, name: str) -> None:
        """Its connections break; every request it has can go on elsewhere for nothing."""
        self._fault(name, Fault(reset_after=self.random.randrange(3000), times=self.random.randrange(1, 4)))

    def slice_bytes(self, name: str) -> None:
        self._fault(name, Fault(is_sliced=True, times=3))

    def hang(self, name: str) -> None:
        self._fault(name, Fault(hang_after=self.random.randrange(3000), times=self.random.randrange(1, 4)))

    def talk_nonsense(self, name: str) -> None:
        reply = self.random.choice([ERROR_500, EMPTY_200, GARBAGE, NO_TOKEN, ENDLESS])
        self._fault(name, Fault(reply=reply, times=self.random.randrange(1, 6)))

    def lose_engine(self, name: str) -> None:
        engine = self.service.engines[name]
        engine.error, engine.error_after = EngineStopped("the engine is gone"), self.random.randrange(len(PIECES))

    def kill(self, name: str) -> None:
        if name not in self.dead:
            self.dead.add(name)
            self.service.paths[name].kill()

    async def heal(self, name: str) -> None:
        if name in self.dead:
            self.dead.remove(name)
            await self.service.paths[name].revive()
        self._fault(name, Fault())
        self.service.engines[name].error = None
        self.service.balancer.set_admin(name, "ready", force=False)

    def take_out(self, name: str) -> None:
        self.service.balancer.set_admin(name, self.random.choice(["maint", "drain"]), force=True)

    def _fault(self, name: str, fault: Fault) -> None:
        self.service.paths[name].fault = fault

    # ---- what people do ----

    def ask(self) -> None:
        mode, reply = self.random.choice([("chat", False), ("sentiment", False), ("sentiment", True)])
        number = len(self.asked)
        request = Request(f"第{number}个故事", mode, reply, timeout_s=20.0, request_id=f"r{number}")
        asked = Asked(request, self.random.random() < 0.7)
        asked.task = asyncio.create_task(asked.ask(self.service), name="asked")
        self.asked.append(asked)

    def hang_up(self) -> None:
        """Somebody leaves, in whatever phase the request is."""
        if running := self.running:
            self.random.choice(running).cancel()

    @property
    def running(self) -> list[asyncio.Task[None]]:
        return [asked.task for asked in self.asked if not asked.task.done()]

    async def go_on(self) -> None:
        """Until a request ends, or a moment has passed in which none does."""
        if running := self.running:
            await asyncio.wait(running, timeout=0.02, return_when=asyncio.FIRST_COMPLETED)

    # ---- how it ends ----

    async def end(self) -> None:
        """All workers are well again: every request that still waits gets an answer."""
        for name in self.service.engines:
            await self.heal(name)
        if self.running:
            await asyncio.wait(self.running)

    def errors(self) -> list[BaseException]:
        """What requests ended with that were not answered, those aside whose caller left."""
        tasks = [asked.task for asked in self.asked]
        return [error for task in tasks if not task.cancelled() and (error := task.exception())]

    async def assert_quiet(self) -> None:
        service = self.service
        await service.until(lambda: service.gate.in_flight == service.balancer.snapshot().in_flight == 0)
        await service.until(lambda: all(engine.open_streams == 0 for engine in service.engines.values()))
        service.assert_quiet()

    def assert_logged(self) -> None:
        """The log has each request once, with the outcome that its client got."""
        rows = self.service.rows()
        for asked in self.asked:
            if asked.task.cancelled():
                continue
            mine = [row for row in rows if row.id == asked.request.request_id]
            tasks = ["sentiment", "chat"] if asked.request.reply else [asked.request.mode]
            if asked.task.exception() is None:
                assert [(row.task, row.outcome) for row in mine] == [(task, "ok") for task in tasks]
            elif mine:  # a request without any worker has no row
                *before, last = mine
                assert [row.task for row in mine] == tasks[: len(mine)]
                assert [row.outcome for row in before] == ["ok"] * len(before)
                assert (last.outcome, last.error) == ("failed", asked.task.exception().code)


@asynccontextmanager
async def chaos(tmp_path, seed: int, params: Params = HASTY):
    """Nothing complains, and no task is left when all is over."""
    before, complaints = asyncio.all_tasks(), []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    async with balanced({name: Unhurried(pieces=PIECES) for name in NAMES}, tmp_path, params=params) as service:
        script = Chaos(service, seed)
        yield script
        await script.end()
        await script.assert_quiet()
        script.assert_logged()
    await service.until(lambda: asyncio.all_tasks() == before)
    assert complaints == []


@pytest.mark.parametrize("seed", SEEDS)
async def test_while_one_worker_is_well_no_client_notices_what_happens_to_the_others(tmp_path, seed):
    async with chaos(tmp_path, seed, PATIENT) as script:
        for _ in range(STEPS):
            name = script.random.choice("ab")
            action = script.random.choice(
                [script.break_some_bytes, script.slice_bytes, script.take_out, script.heal, script.heal]
            )
            if (doing := action(name)) is not None:
                await doing
            for _ in range(script.random.randrange(5)):
                script.ask()
            await script.go_on()
    assert script.errors() == []


@pytest.mark.parametrize("seed", SEEDS)
async def test_whatever_happens_every_request_has_one_honest_outcome(tmp_path, seed):
    async with chaos(tmp_path, seed) as script:
        harm = [script.break_some_bytes, script.hang, script.talk_nonsense, script.lose_engine, script.kill]
        for _ in range(STEPS):
            name = script.random.choice(NAMES)
            action = script.random.choice([*harm, script.take_out, script.heal, script.heal, script.heal])
            if (doing := action(name)) is not None:
                await doing
            for _ in range(script.random.randrange(5)):
                script.ask()
            if script.random.random() < 0.3:
                script.hang_up()
            await script.go_on()
    errors = script.errors()
    assert [error for error in errors if not isinstance(error, HONEST)] == []
    assert all(isinstance(error, QwenAioError) for error in errors)
