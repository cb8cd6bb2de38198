"""A worker's own health: what goes into its record, and when the pulse stops."""

from dataclasses import replace
from statistics import pstdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_aio.engine.requests import EngineSnapshot
from qwen_aio.result import Timings
from qwen_aio.status.record import WorkerStatus
from qwen_aio.worker.health import ProcessMeter, WorkerHealth
from tests.fakes import CountingGuard

FIRST = WorkerStatus(
    id="qwen-1", url="http://127.0.0.1:7861", pid=4242, start_time=1.0, generation=3, seq=1, state="starting"
)
IDLE = EngineSnapshot(capacity=8)
BUSY = EngineSnapshot(capacity=8, running=1)


class World:
    """Everything around a WorkerHealth, to be set by the test."""

    def __init__(self) -> None:
        self.now = 100.0
        self.cpu = 0.0
        self.engine = IDLE
        self.health = WorkerHealth(
            FIRST, engine=lambda: self.engine, meter=self, clock=lambda: self.now, wall_clock=lambda: 0.0
        )

    def cpu_percent(self) -> float:
        return self.cpu

    def rss_mb(self) -> float:
        return 812.04

    def seq(self) -> int:
        return self.health.status("ready").seq

    def sample(self, *readings: float) -> None:
        for reading in readings:
            self.cpu = reading
            self.health.sample()


def timings(*, prefill_ms: float, decode_ms: float = 0.0, queue_ms: float = 5000.0) -> Timings:
    return Timings(queue_ms, prefill_ms, decode_ms, queue_ms + prefill_ms + decode_ms)


# ---- the record -----------------------------------------------------------------------------------------------------


def test_a_record_keeps_the_identity_and_counts_on() -> None:
    world = World()
    world.engine = EngineSnapshot(queue_depth=2, running=1, capacity=8, completed=95, steps=7)
    status = world.health.status("ready")
    assert status == replace(
        FIRST,
        seq=2,
        state="ready",
        queue_depth=2,
        running=1,
        capacity=8,
        completed=95,
        rss_mb=812.0,
        wall_time="1970-01-01T00:00:00Z",
    )
    assert world.health.latest == status


def test_a_record_has_what_the_egress_guard_refused_and_nothing_where_there_is_none() -> None:
    world = World()
    assert world.health.status("ready").egress_refused is None
    world.health.egress = CountingGuard(3)
    assert world.health.status("ready").egress_refused == 3


def test_a_worker_that_is_still_loading_reports_that_it_lives() -> None:
    world = World()
    world.engine = EngineSnapshot()
    assert [(world.health.status("starting").state, world.seq()) for _ in range(2)] == [
        ("starting", 3),
        ("starting", 5),
    ]


def test_what_is_known_of_the_model_stands_in_every_later_record() -> None:
    world = World()
    world.health.describe(
        model="bundled",
        model_sha="abc",
        precision="int8",
        kernel="avx2",
        kv_mb=64,
        tasks_sha="def",
        golden={"chat": "ok 6 cases"},
    )
    for _ in range(2):
        status = world.health.status("ready")
        assert (status.model, status.model_sha, status.tasks_sha) == ("bundled", "abc", "def")
        assert (status.precision, status.kv_mb) == ("int8", 64)
        assert status.golden == {"chat": "ok 6 cases"}


# ---- latency --------------------------------------------------------------------------------------------------------


def test_a_decision_is_judged_by_its_total_and_an_answer_by_its_first_token() -> None:
    world = World()
    world.health.record("decision", timings(prefill_ms=80, decode_ms=20))
    world.health.record("generation", timings(prefill_ms=200, decode_ms=19_800))
    status = world.health.status("ready")
    assert status.slow_ms == 150.0  # (80 + 20 and 200) / 2: the long answer does not make the worker slow
    assert status.latency_ms_last5 == (100.0, 20_000.0)
    assert status.latency_ms_mean5 == 10_050.0
    assert status.ttft_ms_mean5 == 200.0


def test_time_in_the_queue_is_no_latency_of_the_worker() -> None:
    world = World()
    world.health.record("decision", timings(prefill_ms=80, queue_ms=60_000))
    status = world.health.status("ready")
    assert status.slow_ms == status.latency_ms_mean5 == 80.0


def test_without_a_finished_request_no_latency_is_claimed() -> None:
    status = World().health.status("ready")
    assert (status.slow_ms, status.latency_ms_mean5, status.ttft_ms_mean5, status.latency_ms_last5) == (
        None,
        None,
        None,
        (),
    )


@given(prefills=st.lists(st.integers(0, 10_000), min_size=1, max_size=20))
def test_only_the_last_five_count(prefills: list[int]) -> None:
    world = World()
    for prefill_ms in prefills:
        world.health.record("decision", timings(prefill_ms=prefill_ms))
    status = world.health.status("ready")
    assert status.latency_ms_last5 == tuple(prefills[-5:])
    assert status.slow_ms == pytest.approx(sum(prefills[-5:]) / len(prefills[-5:]), abs=0.051)


def test_tokens_per_second_is_what_was_generated_since_the_last_record() -> None:
    world = World()
    world.health.status("ready")
    world.now += 2
    world.engine = replace(BUSY, generated_tokens=48, steps=48)
    assert world.health.status("ready").tokens_per_second == 24.0
    world.now += 2
    assert world.health.status("ready").tokens_per_second == 0.0


# ---- CPU ------------------------------------------------------------------------------------------------------------


def test_jitter_is_the_deviation_of_the_last_ten_readings_under_work() -> None:
    world = World()
    world.engine = BUSY
    readings = [50.0, 90.0, 10.0, 70.0, 30.0, 95.0, 5.0, 60.0, 40.0, 80.0]
    world.sample(0.0, 33.0, 100.0, *readings)
    status = world.health.status("ready")
    assert status.cpu_jitter == round(pstdev(readings), 1)
    assert status.cpu_percent == 53.0


def test_idleness_is_no_jitter() -> None:
    world = World()
    world.sample(0.0, 3.0)
    world.engine = BUSY
    world.sample(45.0, 90.0, 90.0, 90.0)  # the first began while there was nothing to do
    world.engine = IDLE
    world.sample(20.0, 0.0)  # and here the work ended
    assert world.health.status("ready").cpu_jitter == 0.0


def test_waiting_work_is_work_too() -> None:
    world = World()
    world.engine = EngineSnapshot(queue_depth=1)
    world.sample(0.0, 100.0, 50.0)
    assert world.health.status("ready").cpu_jitter == 25.0


def test_the_meter_of_this_process_stays_within_bounds() -> None:
    meter = ProcessMeter(threads=1)
    sum(number * number for number in range(200_000))
    assert 0.0 <= meter.cpu_percent() <= 100.0
    assert meter.rss_mb() > 1.0


# ---- the pulse ------------------------------------------------------------------------------------------------------


def test_an_idle_worker_has_a_pulse() -> None:
    world = World()
    assert [world.seq(), world.seq(), world.seq()] == [2, 3, 4]


def test_the_pulse_stops_while_work_is_there_and_the_engine_makes_no_step() -> None:
    world = World()
    world.engine = replace(BUSY, steps=10)
    assert world.seq() == 2
    assert [world.seq(), world.seq()] == [2, 2]
    world.engine = replace(BUSY, steps=11)
    assert world.seq() == 3


def test_requests_that_wait_for_a_dead_loop_stop_the_pulse_too() -> None:
    world = World()
    world.engine = EngineSnapshot(queue_depth=4)
    assert [world.seq(), world.seq()] == [1, 1]


def test_a_failed_engine_is_reported_and_has_no_heartbeat() -> None:
    world = World()
    world.engine = replace(IDLE, failure="out of memory", steps=3)
    status = world.health.status("ready")
    assert (status.state, status.seq) == ("failed", 1)
