"""The health of a worker, and its record for status.json.

Counts finished requests, takes CPU readings, and takes snapshots of the engine. Knows no file and
no HTTP. Owned by the event loop; no method awaits, so no lock is needed.

`seq` is the heartbeat of the engine, not of this process: it goes up only if the engine has no work
or has made a step since the last record. So a reader takes an engine that hangs at work for gone,
even while the process lives. The first request shows an engine that hangs without work.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from statistics import fmean, pstdev
from typing import Protocol

import psutil  # type: ignore[import-untyped]  # it ships no types

from qwen_aio.core import TaskKind
from qwen_aio.egress.guard import EgressGuard
from qwen_aio.engine.requests import EngineSnapshot
from qwen_aio.result import Timings
from qwen_aio.status.file import utc_time
from qwen_aio.status.record import Count, WorkerState, WorkerStatus

LAST_REQUESTS = 5
LAST_READINGS = 10  # two seconds of CPU readings, 200 ms apart


class Meter(Protocol):
    """CPU and memory of this process, from the operating system."""

    def cpu_percent(self) -> float:
        """Since the last reading; 0 to 100, of the threads the worker may use."""

    def rss_mb(self) -> float:
        """Resident memory, in units of 2**20 bytes."""


class ProcessMeter:
    """The Meter of this process, through psutil."""

    def __init__(self, *, threads: int) -> None:
        """`threads` of the model: 100 percent is that many busy threads."""
        self._process = psutil.Process()
        self._threads = threads
        self._process.cpu_percent()  # the first reading only marks the start of the next

    def cpu_percent(self) -> float:
        return float(min(100.0, self._process.cpu_percent() / self._threads))

    def rss_mb(self) -> float:
        return float(self._process.memory_info().rss / 2**20)


@dataclass(eq=False)
class WorkerHealth:
    """Makes the worker's records."""

    latest: WorkerStatus  # the last record, which /health shows; the first is StatusFile.claimed's
    engine: Callable[[], EngineSnapshot]  # also before it is loaded
    meter: Meter
    egress: EgressGuard = field(default_factory=EgressGuard)
    clock: Callable[[], float] = time.monotonic
    wall_clock: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        self._inference_ms: deque[float] = deque(maxlen=LAST_REQUESTS)
        self._ttft_ms: deque[float] = deque(maxlen=LAST_REQUESTS)
        self._slow_ms: deque[float] = deque(maxlen=LAST_REQUESTS)
        self._readings: deque[float] = deque(maxlen=LAST_READINGS)
        self._busy_readings: deque[float] = deque(maxlen=LAST_READINGS)
        self._was_busy = False
        self._completed_before = 0  # golden cases and pinned prefixes
        self._reported = self.engine()
        self._reported_at = self.clock()

    def describe(
        self,
        *,
        model: str,
        model_sha: str,
        precision: str,
        kernel: str,
        kv_mb: int,
        tasks_sha: str,
        golden: Mapping[str, str],
    ) -> None:
        """Describe the loaded model in later records. Requests completed before are not counted."""
        self._completed_before = self.engine().completed
        self.latest = replace(
            self.latest,
            model=model,
            model_sha=model_sha,
            precision=precision,
            kernel=kernel,
            kv_mb=kv_mb,
            tasks_sha=tasks_sha,
            golden=dict(golden),
        )

    def record(self, kind: TaskKind, timings: Timings) -> None:
        """Count one finished engine request. Its latency is without the time in the queue."""
        inference_ms = timings.prefill_ms + timings.decode_ms
        self._inference_ms.append(inference_ms)
        if kind == "generation":
            self._ttft_ms.append(timings.prefill_ms)
        # A long answer is not a slow one: it is judged by its first token, a decision by the whole.
        self._slow_ms.append(timings.prefill_ms if kind == "generation" else inference_ms)

    def count(self, name: Count) -> None:
        """One more of what a check of messages or answers led to."""
        self.latest = replace(self.latest, **{name: getattr(self.latest, name) + 1})

    def sample(self) -> None:
        """Take one CPU reading; called every 200 ms."""
        reading = self.meter.cpu_percent()
        is_busy = _has_work(self.engine())
        self._readings.append(reading)
        # A reading covers the time since the last one: busy at one end only, it mixes in idleness.
        if is_busy and self._was_busy:
            self._busy_readings.append(reading)
        self._was_busy = is_busy

    def status(self, state: WorkerState) -> WorkerStatus:
        """The next record: `state`, or "failed" once the engine is."""
        engine, now = self.engine(), self.clock()
        self.latest = replace(
            self.latest,
            seq=self.latest.seq + (1 if self._is_alive(engine) else 0),
            state="failed" if engine.failure else state,
            queue_depth=engine.queue_depth,
            running=engine.running,
            capacity=engine.capacity,
            completed=engine.completed - self._completed_before,
            latency_ms_last5=tuple(round(value, 1) for value in self._inference_ms),
            latency_ms_mean5=_mean(self._inference_ms),
            ttft_ms_mean5=_mean(self._ttft_ms),
            slow_ms=_mean(self._slow_ms),
            tokens_per_second=self._tokens_per_second(engine, now),
            cpu_percent=_mean(self._readings) or 0.0,
            cpu_jitter=round(pstdev(self._busy_readings), 1) if self._busy_readings else 0.0,
            rss_mb=round(self.meter.rss_mb(), 1),
            egress_refused=self.egress.refused,
            wall_time=utc_time(self.wall_clock()),
        )
        self._reported, self._reported_at = engine, now
        return self.latest

    def _is_alive(self, engine: EngineSnapshot) -> bool:
        has_stepped = engine.steps != self._reported.steps
        return engine.failure is None and (has_stepped or not _has_work(engine))

    def _tokens_per_second(self, engine: EngineSnapshot, now: float) -> float:
        """Over all answers, since the last record."""
        elapsed_s = now - self._reported_at
        tokens = engine.generated_tokens - self._reported.generated_tokens
        return round(tokens / elapsed_s, 1) if elapsed_s > 0 else 0.0


def _has_work(engine: EngineSnapshot) -> bool:
    return engine.running > 0 or engine.queue_depth > 0


def _mean(values: Collection[float]) -> float | None:
    return round(fmean(values), 1) if values else None
