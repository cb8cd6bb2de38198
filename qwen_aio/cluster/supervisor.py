"""All children of a cluster, from the first start to the last end.

    a child ends          it is started again (keeper.py); the others do not notice
    first signal          stage by stage, in order: each child finishes its work; exit status 0
    second signal         everything ends at once
    one cannot start      the others are ended, and its error is raised

Lives on the event loop of the cluster. Knows neither kinds of children nor their addresses.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from qwen_aio.cluster.child import Child, OnLine
from qwen_aio.cluster.keeper import Keeper
from qwen_aio.serving.interruption import cancel
from qwen_aio.status.record import WorkerState

STOP_S = 35.0  # a server's own grace period, and some


class Supervisor:
    """Starts, watches and ends its children."""

    def __init__(
        self,
        stages: Sequence[Sequence[Child]],
        *,
        report: OnLine,
        on_output: OnLine,
        announce: str,
        memory: Callable[[], str],
        on_state: Callable[[WorkerState], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`stages` is the order in which children are ended; the others are as in Keeper.

        `announce` is reported once, when all are ready. `on_state` is called with "ready" then, and with
        "draining" before the first one is ended.
        """
        keeper = partial(
            Keeper, report=report, on_output=on_output, on_change=self._show, memory=memory, clock=clock, pause=pause
        )
        self._stages = [[keeper(child) for child in stage] for stage in stages]
        self._keepers = [keeper for stage in self._stages for keeper in stage]
        self._report = report
        self._announce: str | None = announce
        self._on_state = on_state

    async def run(self, signals: asyncio.Queue[int]) -> int:
        """Until a signal arrives; the exit status. Raises SetupError if a child cannot start."""
        self._show()
        keeping = [asyncio.create_task(keeper.keep(), name=f"keeper of {keeper.name}") for keeper in self._keepers]
        coming = asyncio.create_task(signals.get())
        try:
            await asyncio.wait({coming, *keeping}, return_when=asyncio.FIRST_COMPLETED)
            failures = [task for task in keeping if task.done()]
        finally:
            for task in (coming, *keeping):
                await cancel(task)
        second = await self._stop(signals)
        for task in failures:
            task.result()
        return 0 if second is None else 128 + second

    async def _stop(self, signals: asyncio.Queue[int]) -> int | None:
        """End all children; the number of a signal that ended the waiting for them, if one came."""
        self._on_state("draining")
        stopping = asyncio.create_task(self._stop_in_order())
        coming = asyncio.create_task(signals.get())
        await asyncio.wait({stopping, coming}, return_when=asyncio.FIRST_COMPLETED)
        if stopping.done():
            await cancel(coming)
        else:
            for keeper in self._keepers:
                keeper.kill()
        await stopping
        return None if coming.cancelled() else coming.result()

    async def _stop_in_order(self) -> None:
        for stage in self._stages:
            self._report(f"stopping {', '.join(keeper.name for keeper in stage)}")
            async with asyncio.TaskGroup() as stopping:
                for keeper in stage:
                    stopping.create_task(keeper.stop(patience_s=STOP_S))

    def _show(self) -> None:
        self._report(", ".join(f"{keeper.name} {keeper.state}" for keeper in self._keepers))
        if self._announce and all(keeper.state == "ready" for keeper in self._keepers):
            self._report(self._announce)
            self._on_state("ready")
            self._announce = None
