"""How a request goes from worker to worker: scripted workers instead of sockets, and a clock that stands still."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from random import Random

import pytest

from qwen_aio.balancer.cost.queue import RequestQueue
from qwen_aio.balancer.dispatch.dispatcher import Dispatcher
from qwen_aio.balancer.dispatch.remote_executor import RemoteExecutor
from qwen_aio.balancer.dispatch.retry_budget import RetryBudget
from qwen_aio.balancer.metrics import BalancerMetrics
from qwen_aio.balancer.params import PARAMS
from qwen_aio.balancer.stats import Stats
from qwen_aio.core import Capabilities, EngineRequest, SamplingWish
from qwen_aio.errors import (
    ConnectionLost,
    DeadlineExceeded,
    EngineStopped,
    NotReady,
    NoWorker,
    PoisonRequest,
    QueueFull,
    QwenAioError,
    RequestFailed,
)
from qwen_aio.result import Answer, AnswerStart, Decision, EngineEvent, Safety, TextDelta, Timings, Usage
from qwen_aio.serving.deadline import Deadline
from tests.balancer.fake_view import FakeView
from tests.balancer.world import CAPABILITIES, SENTIMENT, World

CHAT, DECIDE = (
    EngineRequest("r1", "chat", "hi", timeout_s=100.0),
    EngineRequest("r2", "sentiment", "hi", timeout_s=100.0),
)
Events = AsyncGenerator[EngineEvent, None]
Script = Callable[[EngineRequest], Events]


def answer(*, tokens: int = 2) -> Answer:
    return Answer("chat", "", "stop", Usage(10, 0, tokens), Timings(), worker="w", model="m")


def decision() -> Decision:
    scores = {"negative": 1.0}
    return Decision(
        *("sentiment", "negative", "负面", "", "高", "negative", 1.0, scores, False, 1.0, "", ""),
        usage=Usage(10, 0, 0),
        timings=Timings(),
    )


def says(*events: EngineEvent | QwenAioError) -> Script:
    """A worker that gives these, and raises what is an error."""

    async def script(_: EngineRequest) -> Events:
        for event in events:
            if isinstance(event, QwenAioError):
                raise event
            yield event

    return script


async def nothing(_: EngineRequest) -> Events:
    """A worker that is silent for ever."""
    await asyncio.Event().wait()
    yield TextDelta("")


class Scene:
    """Everything around a request. What a worker is asked is in `asked`; what it does is its next script."""

    def __init__(self, *names: str, capabilities: Capabilities = CAPABILITIES) -> None:
        self.world = World()
        self.world.up(*names, capabilities=capabilities)
        self.asked: list[tuple[str, EngineRequest]] = []
        self.scripts: dict[str, list[Script]] = {name: [] for name in names}
        self.gone: set[str] = set()
        self.stats = Stats(clock=self.world.clock)
        view = FakeView()
        self.metrics = BalancerMetrics(lambda: replace(view.snapshot(), workers=self.world.registry.rows()))
        self.dispatcher = Dispatcher(
            self.world.registry,
            self.world.placement,
            RequestQueue(PARAMS),
            params=PARAMS,
            clock=self.world.clock,
            random=Random(1),
        )
        self.executor = RemoteExecutor(
            self.world.registry,
            self.dispatcher,
            self,  # type: ignore[arg-type]  # it makes the clients itself
            RetryBudget(PARAMS, self.world.clock),
            self.stats,
            self.metrics,
            params=PARAMS,
            clock=self.world.clock,
            is_gone=self.is_gone,
        )

    def to(self, url: str) -> ScriptedClient:
        return ScriptedClient(self, url.removeprefix("http://"))

    async def is_gone(self, worker_id: str) -> bool:
        if worker_id in self.gone:
            self.world.registry.refused(worker_id, "nobody listens")
        return worker_id in self.gone

    async def make(self, call: EngineRequest) -> list[EngineEvent]:
        async with aclosing(self.executor.execute(call)) as events:
            return [event async for event in events]

    def making(self, call: EngineRequest) -> asyncio.Task[list[EngineEvent]]:
        return asyncio.create_task(self.make(call))

    async def until(self, check: Callable[[], object]) -> None:
        while not check():  # noqa: ASYNC110  nothing signals it
            await asyncio.sleep(0)

    def later(self, seconds: float, *beating: str) -> None:
        """Time has passed, and these workers have reported."""
        self.world.clock.advance(seconds)
        for name in beating:
            self.world.record(name)

    def metric(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"qwen_aio_{name}", labels)

    def row(self):
        return self.stats.history().requests[-1]

    def assert_quiet(self) -> None:
        assert self.world.in_flight() == 0
        assert repr(self.dispatcher) == "<Dispatcher 0 waiting>"


class ScriptedClient:
    def __init__(self, scene: Scene, name: str) -> None:
        self._scene, self._name = scene, name

    def execute(self, call: EngineRequest) -> Events:
        self._scene.asked.append((self._name, call))
        return self._scene.scripts[self._name].pop(0)(call)


async def test_the_next_worker_gets_the_seed_of_the_draw_and_the_answer_keeps_its_safety():
    scene = Scene("a", "b")
    checked = Safety("ok", 0.9, "model")
    begun = says(AnswerStart(8, checked), TextDelta("one", (1,)), ConnectionLost("gone"))
    ended = says(AnswerStart(8, None), TextDelta("two", (2,)), answer())
    scene.scripts = {"a": [begun], "b": [ended]}
    events = await scene.make(replace(CHAT, sampling=SamplingWish(seed=7)))
    assert [call.sampling.seed for _, call in scene.asked] == [7, 8]  # the first sentence was drawn twice
    assert (events[-1].text, events[-1].safety) == ("onetwo", checked)
    scene.assert_quiet()


async def test_attempts_are_counted_where_they_failed_and_where_they_went():
    scene = Scene("a", "b")
    scene.scripts = {"a": [says(ConnectionLost("gone"))], "b": [says(decision())]}
    await scene.make(DECIDE)
    counts = {
        name: [scene.metric(f"worker_{name}_total", worker=worker) for worker in ("a", "b")]
        for name in ("picks", "retries", "redispatches")
    }
    assert counts == {"picks": [1, 1], "retries": [1, 0], "redispatches": [1, 0]}
    assert scene.metric("request_duration_seconds_count", task="sentiment", kind="decision") == 1


async def test_an_attempt_that_the_same_worker_gets_again_is_no_redispatch():
    scene = Scene("a")
    scene.scripts = {"a": [says(ConnectionLost("gone")), says(decision())]}
    await scene.make(DECIDE)
    assert [scene.metric(f"worker_{name}_total", worker="a") for name in ("picks", "retries", "redispatches")] == [
        2,
        1,
        0,
    ]


async def test_the_times_of_a_resumed_answer_are_those_of_no_worker():
    scene = Scene("a", "b")
    begun = says(TextDelta("one", (1,)), ConnectionLost("gone"))
    scene.scripts = {"a": [begun], "b": [says(TextDelta("two", (2,)), answer())]}
    await scene.make(CHAT)
    labels = {"task": "chat", "kind": "generation"}
    assert scene.metric("request_duration_seconds_count", **labels) == 1
    assert scene.metric("time_to_first_token_seconds_count", **labels) is None


async def test_a_worker_lost_before_the_first_token_leaves_the_next_one_its_own_draw():
    scene = Scene("a", "b")
    lost = says(AnswerStart(8, Safety("ok", 0.9, "model")), ConnectionLost("gone"))
    other = Safety("ok", 0.8, "model")
    whole = replace(answer(), safety=other)
    scene.scripts = {"a": [lost], "b": [says(AnswerStart(7, other), TextDelta("one", (1,)), whole)]}
    events = await scene.make(replace(CHAT, sampling=SamplingWish(seed=7)))
    assert [call.sampling.seed for _, call in scene.asked] == [7, 7]
    assert (events[-1].text, events[-1].safety) == ("one", other)


@pytest.mark.parametrize("finish_reason", ["fixed", "extracted"])
async def test_an_answer_of_no_token_is_passed_on_whole(finish_reason):
    scene = Scene("a")
    fixed = replace(answer(tokens=0), text="请拨打 120。", finish_reason=finish_reason)
    scene.scripts = {"a": [says(fixed)]}
    [event] = await scene.make(CHAT)
    assert event.text == "请拨打 120。"
    scene.assert_quiet()


async def test_the_next_worker_is_given_the_time_that_is_left():
    scene = Scene("a", "b")

    async def script(call: EngineRequest) -> Events:
        if call.resume:
            yield TextDelta("two", (2,))
            yield answer()
            return
        yield TextDelta("one", (1,))
        scene.later(30, "a", "b")
        raise ConnectionLost("gone")

    scene.scripts = {"a": [script], "b": [script]}
    pieces = await scene.make(CHAT)
    assert [call.timeout_s for _, call in scene.asked] == [100.0, 70.0]
    assert [call.resume for _, call in scene.asked] == [(), (1,)]
    assert pieces[-1].text == "onetwo"
    scene.assert_quiet()


async def test_time_in_the_queue_is_not_given_to_the_worker_again():
    scene = Scene("a")
    held = [scene.world.bind() for _ in range(8)]
    scene.scripts["a"] = [says(decision())]
    waiting = scene.making(DECIDE)
    await scene.until(lambda: repr(scene.dispatcher) == "<Dispatcher 1 waiting>")
    scene.later(20, "a")
    for slot in held:
        slot.release()
    scene.dispatcher.match()
    await waiting
    assert scene.asked[0][1].timeout_s == 80.0
    assert scene.row().queue_ms == 20_000


async def test_an_answer_that_breaks_again_much_later_has_its_whole_time_to_find_another_worker():
    scene = Scene("a", "b")
    is_b_back = asyncio.Event()

    async def breaks(_: EngineRequest) -> Events:
        yield TextDelta("1", (1,))
        scene.later(40, "a")
        raise ConnectionLost("gone")

    async def breaks_again(_: EngineRequest) -> Events:
        await is_b_back.wait()
        yield TextDelta("2", (2,))
        scene.later(40, "a", "b")
        raise ConnectionLost("gone")

    scene.scripts = {"a": [breaks, breaks_again], "b": [says(TextDelta("3", (3,)), answer(tokens=3))]}
    scene.world.registry.refused("b", "nobody listens")
    making = scene.making(CHAT)
    await scene.until(lambda: len(scene.asked) == 2)  # no other worker was there: a had another chance
    scene.world.record("b")
    others = [scene.world.bind(tried={"a"}) for _ in range(8)]
    is_b_back.set()
    await scene.until(lambda: repr(scene.dispatcher) == "<Dispatcher 1 waiting>")
    for _ in range(5):  # a request without time left would give up
        await asyncio.sleep(0)
    assert repr(scene.dispatcher) == "<Dispatcher 1 waiting>"
    for slot in others:
        slot.release()
    scene.dispatcher.match()
    assert (await making)[-1].text == "123"
    assert [name for name, _ in scene.asked] == ["a", "a", "b"]
    scene.assert_quiet()


async def test_a_worker_whose_engine_has_stopped_gets_nothing_more():
    scene = Scene("a", "b")
    scene.scripts = {"a": [says(EngineStopped("the engine is gone"))], "b": [says(decision())] * 3}
    scene.world.registry.refused("b", "nobody listens")
    making = scene.making(DECIDE)
    await scene.until(lambda: scene.world.health("a") == "down")
    scene.world.answer("b")
    scene.dispatcher.match()
    await making
    for _ in range(2):
        await scene.make(DECIDE)
    assert [name for name, _ in scene.asked] == ["a", "b", "b", "b"]
    scene.assert_quiet()


@pytest.mark.parametrize("call", [DECIDE, CHAT])
async def test_what_fails_on_two_workers_is_at_fault_itself(call):
    scene = Scene("a", "b", "c")
    scene.scripts = {name: [says(RequestFailed("it failed"))] * 20 for name in "abc"}
    for number in range(1, 11):
        with pytest.raises(RequestFailed):
            await scene.make(call)
        assert len(scene.asked) == 2 * number
        assert scene.row().error == "request_failed"
    rows = [scene.world.row(name) for name in "abc"]
    assert {(row.health, row.breaker, row.cost.failure_factor) for row in rows} == {("up", "closed", 1.0)}
    scene.assert_quiet()


async def test_a_worker_that_fails_at_what_another_one_can_do_is_to_blame():
    scene = Scene("a", "b")
    scene.scripts = {"a": [says(RequestFailed("it failed"))], "b": [says(decision())]}
    await scene.make(DECIDE)
    assert [name for name, _ in scene.asked] == ["a", "b"]
    assert scene.world.row("a").cost.failure_factor > 1
    assert scene.world.row("b").cost.failure_factor == 1
    scene.assert_quiet()


async def test_the_only_worker_is_not_asked_again_what_it_failed_at():
    scene = Scene("a")
    scene.scripts["a"] = [says(RequestFailed("it failed"))] * 2
    with pytest.raises(RequestFailed):
        await scene.make(DECIDE)
    assert len(scene.asked) == 1
    scene.assert_quiet()


async def test_an_answer_that_failed_in_the_middle_goes_on_elsewhere_or_says_so():
    begun = says(TextDelta("1", (1,)), RequestFailed("it failed"))
    scene = Scene("a", "b")
    scene.scripts = {"a": [begun], "b": [says(TextDelta("2", (2,)), answer())]}
    assert (await scene.make(CHAT))[-1].text == "12"
    assert scene.asked[1][1].resume == (1,)
    scene = Scene("a", "b")
    scene.scripts = {"a": [begun], "b": [says(RequestFailed("it failed"))]}
    with pytest.raises(RequestFailed):
        await scene.make(CHAT)
    scene.assert_quiet()


@pytest.mark.parametrize(
    ("call", "odd", "sound"),
    [(DECIDE, (TextDelta("x", (1,)),), decision()), (DECIDE, (answer(),), decision()), (CHAT, (decision(),), answer())],
)
async def test_an_event_of_the_other_kind_is_a_failure_of_the_worker(call, odd, sound):
    scene = Scene("a", "b")
    for name in scene.scripts:
        scene.scripts[name] = [says(*odd), says(sound)]
    scene.scripts["b"].reverse()
    scene.scripts["a"].append(says(sound))
    for _ in range(2):
        assert [type(event) for event in await scene.make(call)] == [type(sound)]
    assert scene.world.row("a").breaker == scene.world.row("b").breaker == "closed"
    scene.assert_quiet()


@pytest.mark.parametrize(
    ("usage", "timings"),
    [
        (Usage(10, 0, 10**30), Timings()),
        (Usage(-1, 0, 2), Timings()),
        (Usage(10, 0, 2), Timings(prefill_ms=math.inf)),
        (Usage(10, 0, 2), Timings(decode_ms=math.nan)),
    ],
)
async def test_costs_that_no_worker_can_have_measured_are_a_failure_and_spoil_no_average(usage, timings):
    scene = Scene("a")
    scene.scripts["a"] = [says(replace(answer(), usage=usage, timings=timings)), says(answer())]
    await scene.make(CHAT)
    assert len(scene.asked) == 2
    assert 0 < scene.world.row("a").cost.total < 10
    scene.assert_quiet()


async def test_a_worker_that_is_taken_offline_is_not_taken_for_dead():
    scene = Scene("a", "b")
    scene.scripts = {"a": [nothing], "b": [says(decision())]}
    scene.world.registry.set_admin("b", "maint", force=False)
    making = scene.making(DECIDE)
    await scene.until(lambda: scene.asked)
    scene.world.registry.set_admin("b", "ready", force=False)
    scene.world.registry.set_admin("a", "maint", force=False)
    for _ in range(5):  # a double click, and more
        scene.executor.call_off("a")
        await asyncio.sleep(0)
    await making
    assert (scene.world.health("a"), scene.world.row("a").breaker) == ("up", "closed")
    assert scene.world.changes("a") == ["unknown -> starting", "starting -> up", "ready -> maint"]
    scene.assert_quiet()


async def test_a_worker_that_shuts_down_costs_no_attempt_however_many_do():
    scene = Scene("a", "b", "c", "d", "e")
    for name in scene.scripts:
        scene.scripts[name] = [says(NotReady("still loading"))]
    scene.scripts["e"] = [says(decision())]
    for name in "abcd":
        scene.world.serve(tried=set("abcde") - {name})  # e has been idle for longest: it comes last
    scene.world.serve(tried=set("abcd"))
    assert isinstance((await scene.make(DECIDE))[-1], Decision)
    scene.assert_quiet()


async def test_two_deaths_are_the_end_and_two_lost_connections_are_not():
    scene = Scene("a", "b", "c")
    for name in scene.scripts:
        scene.scripts[name] = [says(ConnectionLost("reset")), says(ConnectionLost("reset"))]
    scene.gone = set("abc")
    with pytest.raises(PoisonRequest):
        await scene.make(DECIDE)
    assert len(scene.asked) == 2
    scene = Scene("a", "b", "c")
    for name in scene.scripts:
        scene.scripts[name] = [says(ConnectionLost("reset"))]
    with pytest.raises(NoWorker):
        await scene.make(DECIDE)
    assert len(scene.asked) == 3
    scene.assert_quiet()


async def test_a_task_whose_only_worker_has_gone_is_refused_and_is_no_bug():
    scene = Scene("a")
    scene.world.up("b", capabilities=Capabilities({"sentiment": SENTIMENT}, CAPABILITIES.context, "fake", "b"))
    scene.world.registry.refused("a", "nobody listens")
    with pytest.raises(NoWorker):
        await scene.make(CHAT)


async def test_the_log_tells_a_deadline_from_a_client_that_left():
    scene = Scene("a")

    async def passing(call: EngineRequest) -> Events:
        scene.later(100, "a")
        async with aclosing(nothing(call)) as events:
            async for event in events:
                yield event

    scene.scripts["a"] = [passing, nothing]
    with pytest.raises(DeadlineExceeded):
        async with aclosing(scene.executor.execute(DECIDE)) as events:
            await Deadline(0.01).next(events)
    assert (scene.row().outcome, scene.row().error) == ("failed", "deadline_exceeded")
    leaving = scene.making(DECIDE)
    await scene.until(lambda: len(scene.asked) == 2)
    leaving.cancel()
    await asyncio.wait({leaving})
    assert (scene.row().outcome, scene.row().error) == ("cancelled", "")
    scene.assert_quiet()


async def test_a_request_that_waited_in_vain_is_in_the_log_with_the_time_that_took():
    scene = Scene("a")
    held = [scene.world.bind() for _ in range(8)]
    waiting = scene.making(EngineRequest("r", "sentiment", "hi", timeout_s=0.1))
    await scene.until(lambda: repr(scene.dispatcher) == "<Dispatcher 1 waiting>")
    scene.later(7, "a")
    with pytest.raises(QueueFull):
        await waiting
    assert (scene.row().queue_ms, scene.row().attempts) == (7000, 0)
    for slot in held:
        slot.release()
    scene.assert_quiet()
