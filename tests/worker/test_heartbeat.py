"""The heartbeat: when it beats, what it leaves behind, and what cannot stop it."""

import asyncio
import logging
from pathlib import Path

import pytest

from qwen_aio.engine.requests import EngineSnapshot
from qwen_aio.errors import StatusUnwritable
from qwen_aio.status.file import StatusFile, read_statuses
from qwen_aio.status.record import WorkerState, WorkerStatus
from qwen_aio.worker.health import WorkerHealth
from qwen_aio.worker.heartbeat import SAMPLE_S, SAMPLES_PER_RECORD, Heartbeat

FIRST = WorkerStatus(
    id="qwen-1", url="http://127.0.0.1:7861", pid=4242, start_time=1.0, generation=1, seq=1, state="starting"
)


class Steady:
    """A meter that counts how often it was asked."""

    def __init__(self) -> None:
        self.num_readings = 0

    def cpu_percent(self) -> float:
        self.num_readings += 1
        return 50.0

    def rss_mb(self) -> float:
        return 100.0


class Metronome:
    """Stands in for sleep: each pause ends when the test says so."""

    def __init__(self) -> None:
        self.pauses: list[float] = []
        self._reached = asyncio.Queue[None]()
        self._go_on = asyncio.Queue[None]()

    async def __call__(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self._reached.put_nowait(None)
        await self._go_on.get()

    async def reached(self) -> None:
        """The heartbeat has done all it does before its next pause."""
        await self._reached.get()

    async def beat(self, ticks: int) -> None:
        for _ in range(ticks):
            self.let_go(1)
            await self.reached()

    def let_go(self, ticks: int) -> None:
        for _ in range(ticks):
            self._go_on.put_nowait(None)


class Disk:
    """Takes records, or refuses them while `error` is set."""

    def __init__(self) -> None:
        self.records: list[WorkerStatus] = []
        self.error: Exception | None = None

    def write(self, status: WorkerStatus) -> None:
        if self.error:
            raise self.error
        self.records.append(status)


class Worker:
    """A worker reduced to its heartbeat."""

    def __init__(self) -> None:
        self.engine = EngineSnapshot()
        self.state: WorkerState = "ready"
        self.meter = Steady()
        self.disk = Disk()
        self.metronome = Metronome()
        self.health = WorkerHealth(FIRST, engine=lambda: self.engine, meter=self.meter, wall_clock=lambda: 0.0)
        self.heartbeat = Heartbeat(self.health, write=self.disk.write, state=lambda: self.state, pause=self.metronome)


async def test_a_record_is_written_at_once_and_then_with_every_tenth_reading() -> None:
    worker = Worker()
    async with worker.heartbeat.beating():
        await worker.metronome.reached()
        assert [status.seq for status in worker.disk.records] == [2]
        await worker.metronome.beat(SAMPLES_PER_RECORD - 1)
        assert len(worker.disk.records) == 1
        await worker.metronome.beat(1)
        assert [status.seq for status in worker.disk.records] == [2, 3]
        assert worker.meter.num_readings == SAMPLES_PER_RECORD + 1
    assert set(worker.metronome.pauses) == {SAMPLE_S}


async def test_a_change_of_state_is_in_the_next_record() -> None:
    worker = Worker()
    worker.state = "starting"
    async with worker.heartbeat.beating():
        await worker.metronome.reached()
        worker.state = "ready"
        await worker.metronome.beat(SAMPLES_PER_RECORD)
    assert [status.state for status in worker.disk.records] == ["starting", "ready", "draining"]


async def test_the_last_record_says_draining_and_nothing_follows_it() -> None:
    worker = Worker()
    async with worker.heartbeat.beating():
        await worker.metronome.reached()
    assert [status.state for status in worker.disk.records] == ["ready", "draining"]
    assert "heartbeat" not in {task.get_name() for task in asyncio.all_tasks()}


@pytest.mark.parametrize("state_of", ["the worker", "the engine"])
async def test_the_last_record_of_a_failed_worker_says_so(state_of: str) -> None:
    worker = Worker()
    async with worker.heartbeat.beating():
        await worker.metronome.reached()
        if state_of == "the worker":
            worker.state = "failed"
        else:
            worker.engine = EngineSnapshot(failure="out of memory")
    assert worker.disk.records[-1].state == "failed"


async def test_the_last_record_is_written_also_when_the_service_ends_in_an_error() -> None:
    worker = Worker()
    with pytest.raises(ZeroDivisionError):
        async with worker.heartbeat.beating():
            raise ZeroDivisionError
    assert worker.disk.records[-1].state == "draining"


async def test_a_record_that_cannot_be_written_is_counted_logged_once_and_tried_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="qwen_aio.worker.heartbeat")
    worker = Worker()
    worker.disk.error = StatusUnwritable("no space left")
    async with worker.heartbeat.beating():
        await worker.metronome.reached()
        await worker.metronome.beat(3 * SAMPLES_PER_RECORD)
        assert worker.heartbeat.write_errors == 4
        assert [line.message for line in caplog.records] == ["status not written, service goes on: no space left"]
        worker.disk.error = None
        await worker.metronome.beat(2 * SAMPLES_PER_RECORD)
        assert len(worker.disk.records) == 2
        assert worker.heartbeat.write_errors == 4
    assert [line.message for line in caplog.records][1:] == ["status written again id=qwen-1 errors=4"]


async def test_a_heartbeat_that_fails_is_logged_at_once_and_raised_at_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    worker = Worker()
    with pytest.raises(RuntimeError, match="a bug"):
        async with worker.heartbeat.beating():
            await worker.metronome.reached()
            worker.disk.error = RuntimeError("a bug")
            beating = next(task for task in asyncio.all_tasks() if task.get_name() == "heartbeat")
            worker.metronome.let_go(SAMPLES_PER_RECORD)
            await asyncio.wait([beating])
            worker.disk.error = None
            levels = [line.levelname for line in caplog.records]
    assert levels == ["CRITICAL"]
    assert worker.disk.records[-1].state == "draining"


async def test_the_service_outlives_every_fault_of_the_folder_and_the_file_heals(tmp_path: Path) -> None:
    path = tmp_path / "status" / "status.json"
    worker = Worker()
    file = StatusFile(path, lock_timeout_s=5)
    heartbeat = Heartbeat(worker.health, write=file.write, state=lambda: "ready", pause=worker.metronome)
    async with heartbeat.beating():
        await worker.metronome.reached()
        for spoil in (path.unlink, lambda: path.write_text("null"), lambda: path.write_bytes(b"")):
            spoil()
            await worker.metronome.beat(SAMPLES_PER_RECORD)
            assert read_statuses(path)["qwen-1"].seq == worker.health.latest.seq
        assert heartbeat.write_errors == 0
        path.unlink()
        path.mkdir()
        await worker.metronome.beat(SAMPLES_PER_RECORD)
        assert heartbeat.write_errors == 1
        path.rmdir()
        await worker.metronome.beat(SAMPLES_PER_RECORD)
        assert heartbeat.write_errors == 1
    assert read_statuses(path)["qwen-1"].state == "draining"
