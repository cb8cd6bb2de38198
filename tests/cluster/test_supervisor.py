"""Children that are kept alive: what is started again, when, and in which order all of them end."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from qwen_aio.cluster.child import Child, OnLine
from qwen_aio.cluster.keeper import HEALTHY_S, LAST_LINES, Keeper
from qwen_aio.cluster.supervisor import Supervisor
from qwen_aio.errors import SetupError
from tests.fakes import FakeClock

KILLED, MISTAKE = -signal.SIGKILL, 1


class FakeProcess:
    """A process that the test ends, or that ends when it is asked to."""

    def __init__(self, owner: FakeChild, on_line: OnLine) -> None:
        self.owner = owner
        self.on_line = on_line
        self.status: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def terminate(self) -> None:
        if not self.status.done() and self.owner.is_obedient:
            self.owner.asked_to_end.append(self.owner.name)
            self.end(0)

    def kill(self) -> None:
        self.end(KILLED)

    def end(self, status: int) -> None:
        if not self.status.done():
            self.status.set_result(status)

    async def ended(self) -> int:
        return await asyncio.shield(self.status)


class FakeChild:
    """Its processes come out of `started`; it is ready once `ready` is set. `asked_to_end` is shared by all of a test."""

    def __init__(self, name: str, asked_to_end: list[str] | None = None, *, is_obedient: bool = True) -> None:
        self.name = name
        self.asked_to_end = [] if asked_to_end is None else asked_to_end
        self.is_obedient = is_obedient
        self.started: asyncio.Queue[FakeProcess] = asyncio.Queue()
        self.ready = asyncio.Event()
        self.refusals: list[OSError] = []

    async def start(self, on_line: OnLine) -> FakeProcess:
        if self.refusals:
            raise self.refusals.pop()
        process = FakeProcess(self, on_line)
        self.started.put_nowait(process)
        return process

    async def is_ready(self) -> bool:
        return await self.ready.wait()

    def as_child(self) -> Child:
        return Child(self.name, self.start, self.is_ready)


class Pauses:
    """Time that passes at once, and is remembered."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.taken: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.taken.append(seconds)
        self.clock.advance(seconds)
        await asyncio.sleep(0)


class Kept:
    """A keeper at work, with everything around it."""

    def __init__(self, child: FakeChild) -> None:
        self.clock = FakeClock()
        self.pauses = Pauses(self.clock)
        self.reported: list[str] = []
        self.output: list[str] = []
        self.became_ready = asyncio.Event()
        self.keeper = Keeper(
            child.as_child(),
            report=self.reported.append,
            on_output=self.output.append,
            memory=lambda: "2 GB needed, 1 GB available",
            on_change=lambda: self.became_ready.set() if self.keeper.state == "ready" else None,
            clock=self.clock,
            pause=self.pauses,
        )


@asynccontextmanager
async def kept(child: FakeChild) -> AsyncIterator[Kept]:
    """A keeper that gives up ends the test, which would wait for ever for the next process."""
    work = Kept(child)
    async with asyncio.TaskGroup() as group:
        keeping = group.create_task(work.keeper.keep())
        yield work
        keeping.cancel()


async def test_a_child_that_ends_is_started_again_after_pauses_that_grow_to_half_a_minute():
    child = FakeChild("qwen-1")
    async with kept(child) as work:
        for _ in range(9):
            (await child.started.get()).end(-signal.SIGSEGV)
        await child.started.get()
        assert work.pauses.taken == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
        assert work.reported[0] == "qwen-1 was ended by SIGSEGV; starting it again in 0.5 s"


async def test_the_report_of_a_killed_child_includes_the_memory():
    child = FakeChild("qwen-1")
    async with kept(child) as work:
        (await child.started.get()).end(KILLED)
        await child.started.get()
    (reported,) = work.reported
    assert reported.startswith(
        "qwen-1 was killed by signal 9, most often for lack of memory (2 GB needed, 1 GB available);"
    )


async def test_a_minute_of_life_makes_the_next_pause_the_first_one_again():
    child = FakeChild("qwen-1")
    async with kept(child) as work:
        for _ in range(3):
            (await child.started.get()).end(KILLED)
        last = await child.started.get()
        work.clock.advance(HEALTHY_S)
        last.end(KILLED)
        await child.started.get()
        assert work.pauses.taken == [0.5, 1, 2, 0.5]


async def test_what_the_system_refuses_to_start_is_tried_again():
    child = FakeChild("qwen-1")
    child.refusals = [OSError("too many open files"), OSError("no more processes")]
    async with kept(child) as work:
        await child.started.get()
        assert work.reported[0] == "qwen-1 could not be started: no more processes; starting it again in 0.5 s"
        assert work.pauses.taken == [0.5, 1]


async def test_an_error_at_every_start_is_raised_with_the_last_lines_instead_of_trying_for_ever():
    child = FakeChild("qwen-1")
    work = Kept(child)
    keeping = asyncio.create_task(work.keeper.keep())
    for _ in range(3):
        process = await child.started.get()
        for number in range(LAST_LINES):
            process.on_line(f"line {number}")
        process.on_line("qwen-aio: no model folder at /nowhere")
        process.end(MISTAKE)
    with pytest.raises(SetupError) as raised:
        await keeping
    assert "qwen-1 cannot be started" in raised.value.message
    assert raised.value.message.endswith("no model folder at /nowhere")
    assert "line 0" not in raised.value.message
    assert work.output[-1] == "qwen-1 | qwen-aio: no model folder at /nowhere"


async def test_a_crash_between_two_mistakes_and_a_mistake_of_one_that_was_ready_do_not_count():
    child = FakeChild("qwen-1")
    async with kept(child) as work:
        for status in (MISTAKE, MISTAKE, -signal.SIGSEGV, MISTAKE, MISTAKE):
            (await child.started.get()).end(status)
        process = await child.started.get()
        child.ready.set()
        await work.became_ready.wait()
        process.end(MISTAKE)
        child.ready.clear()
        for _ in range(2):
            (await child.started.get()).end(MISTAKE)
        await child.started.get()
        mistake, crash = "qwen-1 ended with status 1", "qwen-1 was ended by SIGSEGV"
        assert [line.split(";")[0] for line in work.reported] == [mistake, mistake, crash, *[mistake] * 5]


async def test_one_that_does_not_end_in_time_is_killed():
    child = FakeChild("qwen-1", is_obedient=False)
    async with kept(child) as work:
        process = await child.started.get()
    await work.keeper.stop(patience_s=0.01)
    assert process.status.result() == KILLED
    assert work.reported == ["qwen-1 did not end within 0.01 s"]


class Cluster:
    """A supervisor over a page, a balancer and two workers, all fakes."""

    def __init__(self, *, is_obedient: bool = True) -> None:
        self.asked_to_end: list[str] = []
        names = (("page",), ("balancer",), ("qwen-1", "qwen-2"))
        self.children = {
            name: FakeChild(name, self.asked_to_end, is_obedient=is_obedient) for stage in names for name in stage
        }
        self.reported: list[str] = []
        self.output: list[str] = []
        self.signals: asyncio.Queue[int] = asyncio.Queue()
        self.announced = asyncio.Event()
        self.states: list[str] = []
        self.supervisor = Supervisor(
            [[self.children[name].as_child() for name in stage] for stage in names],
            report=self.report,
            on_output=self.output.append,
            announce="all there",
            on_state=self.states.append,
            memory=lambda: "2 GB needed, 1 GB available",
            pause=Pauses(FakeClock()),
        )

    def report(self, line: str) -> None:
        self.reported.append(line)
        if line == "all there":
            self.announced.set()

    async def start(self) -> asyncio.Task[int]:
        running = asyncio.create_task(self.supervisor.run(self.signals))
        self.processes = {name: await child.started.get() for name, child in self.children.items()}
        return running


async def test_progress_is_reported_as_it_changes_and_the_end_of_the_start_once():
    cluster = Cluster()
    running = await cluster.start()
    assert cluster.reported == ["page starting, balancer starting, qwen-1 starting, qwen-2 starting"]
    for child in cluster.children.values():
        child.ready.set()
    await cluster.announced.wait()
    assert cluster.reported[-2:] == ["page ready, balancer ready, qwen-1 ready, qwen-2 ready", "all there"]
    cluster.processes["qwen-2"].end(KILLED)
    await cluster.children["qwen-2"].started.get()
    assert cluster.reported[-1] == "page ready, balancer ready, qwen-1 ready, qwen-2 starting"
    assert cluster.states == ["ready"]
    cluster.signals.put_nowait(signal.SIGTERM)
    assert await running == 0
    assert cluster.reported.count("all there") == 1
    assert cluster.states == ["ready", "draining"]


async def test_the_death_of_one_leaves_the_others_alone():
    cluster = Cluster()
    running = await cluster.start()
    cluster.processes["balancer"].end(KILLED)
    await cluster.children["balancer"].started.get()
    assert [name for name, process in cluster.processes.items() if process.status.done()] == ["balancer"]
    cluster.signals.put_nowait(signal.SIGTERM)
    assert await running == 0


async def test_a_signal_ends_the_page_then_the_balancer_then_the_workers():
    cluster = Cluster()
    running = await cluster.start()
    cluster.signals.put_nowait(signal.SIGINT)
    assert await running == 0
    assert cluster.asked_to_end[:2] == ["page", "balancer"]
    assert sorted(cluster.asked_to_end[2:]) == ["qwen-1", "qwen-2"]
    assert all(child.started.empty() for child in cluster.children.values())  # and none is started again


async def test_a_second_signal_ends_everything_at_once():
    cluster = Cluster(is_obedient=False)
    running = await cluster.start()
    cluster.signals.put_nowait(signal.SIGTERM)
    cluster.signals.put_nowait(signal.SIGTERM)
    assert await running == 128 + signal.SIGTERM
    assert {process.status.result() for process in cluster.processes.values()} == {KILLED}


async def test_one_that_cannot_be_started_ends_all_others_and_the_cluster():
    cluster = Cluster()
    running = await cluster.start()
    cluster.processes["qwen-1"].end(MISTAKE)
    for _ in range(2):
        (await cluster.children["qwen-1"].started.get()).end(MISTAKE)
    with pytest.raises(SetupError, match="qwen-1 cannot be started"):
        await running
    assert cluster.asked_to_end == ["page", "balancer", "qwen-2"]
