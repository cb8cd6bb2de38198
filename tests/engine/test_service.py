"""The bridge between event loop and engine thread, with a scripted engine."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable

import pytest

from qwen_aio.core import ContextLimits, Prompt, Sampling
from qwen_aio.engine.config import EngineLimits
from qwen_aio.engine.engine import Engine
from qwen_aio.engine.requests import Counters, Generate, Output, Pin, Pinned, Score, Work
from qwen_aio.engine.service import EngineService
from qwen_aio.errors import EngineStopped, InvalidRequest, QueueFull
from qwen_aio.result import Completion, LabelScore, Scores, TextDelta, Timings, Usage
from tests.engine.running import GREEDY, generate, prompt, run, text_of

NOTHING = Prompt((), (), ())
MakeService = Callable[..., EngineService]


class ScriptedEngine:
    """One delta per request and step; blocks while `gate` is closed, raises `failure` if set."""

    def __init__(self, *, max_queue: int = 4) -> None:
        self.limits = EngineLimits(max_running=2, max_queue=max_queue)
        self.context = ContextLimits(64, 32)
        self.clock = time.monotonic
        self.gate = threading.Event()
        self.gate.set()
        self.failure: Exception | None = None
        self.stepped = threading.Event()
        self.sequences: dict[str, Work] = {}
        self.given: dict[str, int] = {}
        self.aborted: list[str] = []
        self.num_steps = 0

    @property
    def has_work(self) -> bool:
        return bool(self.sequences)

    @property
    def counters(self) -> Counters:
        return Counters(running=min(2, len(self.sequences)), completed=0, steps=self.num_steps)

    def add(self, request_id: str, work: Work, *, arrived_s: float) -> None:
        if isinstance(work, Generate) and work.sampling.max_tokens == 0:
            raise InvalidRequest("max_tokens must be 1 or more", param="max_tokens")
        self.sequences[request_id] = work
        self.given[request_id] = 0

    def abort(self, request_id: str) -> None:
        if self.sequences.pop(request_id, None):
            self.aborted.append(request_id)

    def step(self) -> list[Output]:
        self.stepped.set()
        self.gate.wait()
        if self.failure:
            raise self.failure
        self.num_steps += 1
        return [self._next(request_id) for request_id in list(self.sequences)]

    def _next(self, request_id: str) -> Output:
        match self.sequences[request_id]:
            case Pin():
                del self.sequences[request_id]
                return Output(request_id, Pinned(3))
            case Score(continuations=texts):
                del self.sequences[request_id]
                labels = tuple(LabelScore(text, -1.0, 1) for text in texts)
                return Output(request_id, Scores(labels, Usage(), Timings()))
            case Generate(sampling=sampling):
                index = self.given[request_id]
                self.given[request_id] += 1
                if index + 1 < sampling.max_tokens:
                    return Output(request_id, TextDelta(f"{index} ", index=index))
                del self.sequences[request_id]
                return Output(request_id, Completion("length", Usage(), Timings()))


@pytest.fixture
def scripted() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
async def service(scripted: ScriptedEngine) -> AsyncIterator[EngineService]:
    service = EngineService(scripted)
    service.start()
    yield service
    scripted.gate.set()
    await service.close()


def answer(
    service: EngineService, *, max_tokens: int = 4, request_id: str = "r"
) -> AsyncIterator[TextDelta | Completion]:
    return service.generate(request_id, NOTHING, Sampling(max_tokens=max_tokens))


async def collect(items: AsyncIterator[TextDelta | Completion]) -> list[TextDelta | Completion]:
    return [item async for item in items]


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until `condition` holds; the test's timeout is the limit."""
    while not condition():  # noqa: ASYNC110  what changes is another thread's state
        await asyncio.sleep(0)


async def hold(scripted: ScriptedEngine) -> None:
    """Close the gate, and wait until the engine blocks at it."""
    scripted.gate.clear()
    scripted.stepped.clear()
    await until(scripted.stepped.is_set)


async def test_many_streams_run_side_by_side_and_each_is_whole(service: EngineService) -> None:
    streams = await asyncio.gather(*(collect(answer(service, max_tokens=n)) for n in range(1, 6)))
    for number, (*deltas, completion) in enumerate(streams, 1):
        assert [delta.index for delta in deltas] == list(range(number - 1))
        assert completion.finish_reason == "length"


async def test_a_decision_and_a_pin_have_one_outcome(service: EngineService) -> None:
    scores = await service.score("d", NOTHING, ["正面", "负面"])
    assert [label.text for label in scores.labels] == ["正面", "负面"]
    assert await service.pin(()) == 3


async def test_one_request_id_may_be_used_twice_at_once(service: EngineService) -> None:
    streams = await asyncio.gather(*(collect(answer(service, request_id="same")) for _ in range(2)))
    assert [len(items) for items in streams] == [4, 4]


async def test_closing_a_stream_early_frees_the_sequence(service: EngineService, scripted: ScriptedEngine) -> None:
    items = answer(service, max_tokens=10**9)
    await anext(items)
    await items.aclose()
    await until(lambda: scripted.aborted != [])
    assert scripted.sequences == {}
    assert len(await collect(answer(service))) == 4


@pytest.mark.parametrize("kind", ["score", "generate"])
async def test_cancelling_the_caller_frees_the_sequence(
    service: EngineService, scripted: ScriptedEngine, kind: str
) -> None:
    scripted.gate.clear()
    work = service.score("d", NOTHING, ["x"]) if kind == "score" else collect(answer(service))
    task = asyncio.create_task(work)
    await until(scripted.stepped.is_set)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert service.snapshot().queue_depth == 0
    finished_anyway = kind == "score"  # its step was under way and had it done
    scripted.gate.set()
    await until(lambda: scripted.sequences == {})
    assert len(scripted.aborted) == (0 if finished_anyway else 1)


async def test_a_finished_stream_is_not_aborted(service: EngineService, scripted: ScriptedEngine) -> None:
    await collect(answer(service))
    await service.score("d", NOTHING, ["x"])
    assert scripted.aborted == []


async def test_an_error_of_one_request_reaches_that_request_alone(service: EngineService) -> None:
    good = asyncio.create_task(collect(answer(service, max_tokens=50)))
    with pytest.raises(InvalidRequest) as caught:
        await collect(answer(service, max_tokens=0))
    assert caught.value.param == "max_tokens"
    assert len(await good) == 50
    assert service.snapshot().failure is None


async def test_over_the_limit_a_request_is_refused_at_once(service: EngineService, scripted: ScriptedEngine) -> None:
    scripted.gate.clear()
    tasks = [asyncio.create_task(collect(answer(service))) for _ in range(6)]  # 2 run, 4 wait
    await until(lambda: scripted.stepped.is_set() and service.snapshot().queue_depth + service.snapshot().running == 6)
    with pytest.raises(QueueFull) as caught:
        await service.score("d", NOTHING, ["x"])
    assert caught.value.retry_after_s == 1
    scripted.gate.set()
    assert [len(items) for items in await asyncio.gather(*tasks)] == [4] * 6
    assert (await service.score("d", NOTHING, ["x"])).labels


async def test_a_failing_step_reaches_everyone_at_once(service: EngineService, scripted: ScriptedEngine) -> None:
    scripted.gate.clear()
    watch = asyncio.create_task(service.wait_failed())
    tasks = [asyncio.create_task(collect(answer(service))) for _ in range(3)]
    tasks.append(asyncio.create_task(service.score("d", NOTHING, ["x"])))
    await until(scripted.stepped.is_set)
    scripted.failure = MemoryError("no more")
    scripted.gate.set()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(outcome, EngineStopped)
        assert outcome.__cause__ is scripted.failure
    assert await watch is scripted.failure
    snapshot = service.snapshot()
    assert "no more" in snapshot.failure
    assert (snapshot.running, snapshot.queue_depth) == (0, 0)
    with pytest.raises(EngineStopped):
        await service.score("later", NOTHING, ["x"])
    with pytest.raises(EngineStopped):
        await collect(answer(service))


async def test_deltas_that_came_before_the_failure_are_still_read(
    service: EngineService, scripted: ScriptedEngine
) -> None:
    items = answer(service, max_tokens=10**9)
    assert (await anext(items)).index == 0
    await hold(scripted)
    scripted.failure = RuntimeError("broken")
    scripted.gate.set()
    await service.wait_failed()
    read = [0]
    with pytest.raises(EngineStopped):
        async for item in items:
            read.append(item.index)  # noqa: PERF401  a comprehension would lose what was read before the error
    assert read == list(range(scripted.num_steps))


async def test_close_ends_open_and_new_requests(service: EngineService, scripted: ScriptedEngine) -> None:
    scripted.gate.clear()
    task = asyncio.create_task(collect(answer(service)))
    await until(scripted.stepped.is_set)
    closing = asyncio.create_task(service.close())
    with pytest.raises(EngineStopped):
        await task  # though the engine is still in its step
    scripted.gate.set()
    await closing
    with pytest.raises(EngineStopped):
        await service.score("d", NOTHING, ["x"])
    await service.close()


async def test_a_close_is_not_a_failure(service: EngineService) -> None:
    watch = asyncio.create_task(service.wait_failed())
    await service.close()
    await asyncio.sleep(0)
    assert not watch.done()
    assert service.snapshot().failure is None
    watch.cancel()


async def test_a_service_that_never_started_closes() -> None:
    await EngineService(ScriptedEngine()).close()


def test_a_loop_that_is_gone_ends_the_thread_quietly(
    scripted: ScriptedEngine, caplog: pytest.LogCaptureFixture
) -> None:
    service = EngineService(scripted)

    async def leave_in_the_middle() -> None:
        service.start()
        scripted.gate.clear()
        task = asyncio.create_task(collect(answer(service)))
        await until(scripted.stepped.is_set)
        task.cancel()

    asyncio.run(leave_in_the_middle())
    scripted.gate.set()
    service._thread.join(timeout=10)
    assert not service._thread.is_alive()
    assert caplog.records == []


async def test_with_the_real_engine_text_is_what_the_engine_alone_says(make_engine: Callable[..., Engine]) -> None:
    expected = text_of(run(make_engine(), {"a": generate("你好")})["a"])
    engine = make_engine()
    service = EngineService(engine)
    service.start()
    pinned = await service.pin(prompt("").head)
    (*deltas, _), scores = await asyncio.gather(
        collect(service.generate("a", prompt("你好"), GREEDY)), service.score("b", prompt("x"), ("正面", "负面"))
    )
    assert "".join(delta.text for delta in deltas) == expected
    assert scores.usage.cached_tokens == pinned
    assert service.snapshot().completed == 3
    assert service.snapshot().generated_tokens == GREEDY.max_tokens
    await service.close()
    engine.check_integrity()
