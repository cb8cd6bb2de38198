"""Keeps one child alive: starts it, sees it end, and starts it again after a pause that grows.

Knows neither kinds of children nor the other ones. Lives on the event loop of the cluster.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Literal, NoReturn

from qwen_aio.cluster.child import Child, OnLine, Process
from qwen_aio.errors import SetupError

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
HEALTHY_S = 60.0  # after so long, the next pause is the first one again
LOOK_S = 0.2
SETUP_STATUS = 1  # a program that prints its error as a sentence ends with this ...
SETUP_FAILURES = 3  # ... and after so many in a row, never ready, another start would not help
LAST_LINES = 12
SIGKILL = 9  # which Windows has no name for

State = Literal["starting", "ready", "down"]


class Keeper:
    """One child and its present process."""

    def __init__(
        self,
        child: Child,
        *,
        report: OnLine,
        on_output: OnLine,
        on_change: Callable[[], None],
        memory: Callable[[], str],
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`report` takes its own lines, `on_output` the child's; a new state calls `on_change`.

        `memory` says how much memory is needed and available, for a child killed for lack of it.
        """
        self.name = child.name
        self.state: State = "starting"
        self._child = child
        self._report = report
        self._on_output = on_output
        self._on_change = on_change
        self._memory = memory
        self._clock = clock
        self._pause = pause
        self._process: Process | None = None
        self._last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self._next_pause_s = FIRST_PAUSE_S
        self._setup_failures = 0

    async def keep(self) -> NoReturn:
        """Keep the child alive until cancelled; its present process goes on then, see `stop`.

        Raises SetupError for a child that ends with a setup error at every start.
        """
        while True:
            started_at = self._clock()
            ended = await self._run_once()
            if self._clock() - started_at >= HEALTHY_S:
                self._next_pause_s = FIRST_PAUSE_S
            self._report(f"{self.name} {ended}; starting it again in {self._next_pause_s:g} s")
            self._enter("down")
            await self._pause(self._next_pause_s)
            self._next_pause_s = min(2 * self._next_pause_s, LONGEST_PAUSE_S)

    async def stop(self, *, patience_s: float) -> None:
        """End the process once its work is done, or when patience is over. After `keep`."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            await asyncio.wait_for(self._process.ended(), patience_s)
        except TimeoutError:
            self._report(f"{self.name} did not end within {patience_s:g} s")
            self.kill()
            await self._process.ended()

    def kill(self) -> None:
        """End the process now."""
        if self._process is not None:
            self._process.kill()

    async def _run_once(self) -> str:
        """Start it and wait for its end; how it ended, in words."""
        self._enter("starting")
        self._last_lines.clear()
        try:
            self._process = await self._child.start(self._listen)
        except OSError as exc:  # too many processes or files: that may pass
            return f"could not be started: {exc}"
        async with asyncio.TaskGroup() as tasks:
            looking = tasks.create_task(self._look(), name=f"waiting for {self.name}")
            status = await self._process.ended()
            looking.cancel()
        self._count_setup_failures(status)
        if status == -SIGKILL:
            return f"was killed by signal {SIGKILL}, most often for lack of memory ({self._memory()})"
        return _describe_exit(status)

    async def _look(self) -> None:
        while not await self._child.is_ready():
            await self._pause(LOOK_S)
        self._enter("ready")

    def _listen(self, line: str) -> None:
        self._last_lines.append(line)
        self._on_output(f"{self.name} | {line}")

    def _count_setup_failures(self, status: int | None) -> None:
        is_one = status == SETUP_STATUS and self.state == "starting"
        self._setup_failures = self._setup_failures + 1 if is_one else 0
        if self._setup_failures == SETUP_FAILURES:
            lines = "".join(f"\n  {line}" for line in self._last_lines)
            raise SetupError(f"{self.name} cannot be started; it ended {SETUP_FAILURES} times. Its last words:{lines}")

    def _enter(self, state: State) -> None:
        if state != self.state:
            self.state = state
            self._on_change()


def _describe_exit(status: int | None) -> str:
    if status is None:
        return "ended"
    if status >= 0:
        return f"ended with status {status}"
    known = (each.name for each in signal.Signals if each == -status)
    return f"was ended by {next(known, f'signal {-status}')}"
