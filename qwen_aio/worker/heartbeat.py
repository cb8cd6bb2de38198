"""The heartbeat of a worker: a CPU reading every 200 ms, a record into status.json every 2 s.

Owns one task on the event loop and one thread that writes. A record that cannot be written is
counted and logged once; the service goes on, and so do the attempts. Knows neither engine nor HTTP;
health.py makes the records.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count

from qwen_aio.errors import StatusUnwritable
from qwen_aio.status.record import WorkerState, WorkerStatus
from qwen_aio.worker.health import WorkerHealth

SAMPLE_S = 0.2
SAMPLES_PER_RECORD = 10  # so a record every 2 s
logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Heartbeat:
    """Beats inside `beating()`; `write_errors` counts the records that did not reach the file."""

    health: WorkerHealth
    write: Callable[[WorkerStatus], None]  # StatusFile.write
    state: Callable[[], WorkerState]  # of the worker at that moment
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep

    def __post_init__(self) -> None:
        self.write_errors = 0
        self._is_failing = False
        # One thread keeps the records in order, also after a cancelled beat.
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="status-writer")

    @asynccontextmanager
    async def beating(self) -> AsyncIterator[None]:
        """Beat while the context lasts; then write a last record, "failed" or "draining".

        A failure of the task is logged at once, stops `seq`, and is raised when the context ends.
        """
        task = asyncio.create_task(self._beat(), name="heartbeat")
        task.add_done_callback(_log_failure)
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
            await self._report("failed" if self.state() == "failed" else "draining")
            self._writer.shutdown()
            if not task.cancelled():
                task.result()

    async def _beat(self) -> None:
        for tick in count():
            self.health.sample()
            if tick % SAMPLES_PER_RECORD == 0:
                await self._report(self.state())
            await self.pause(SAMPLE_S)

    async def _report(self, state: WorkerState) -> None:
        status = self.health.status(state)
        try:
            await asyncio.get_running_loop().run_in_executor(self._writer, self.write, status)
        except StatusUnwritable as exc:
            self.write_errors += 1
            if not self._is_failing:
                logger.warning("status not written, service goes on: %s", exc)
            self._is_failing = True
        else:
            if self._is_failing:
                logger.info("status written again id=%s errors=%d", status.id, self.write_errors)
            self._is_failing = False


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (exc := task.exception()):
        logger.critical("heartbeat ended: balancers will take this worker for gone", exc_info=exc)
