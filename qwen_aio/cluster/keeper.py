"""Keeps one child alive: starts it, sees it end, and starts it again after a pause that grows.

Knows no kind of child in particular, and nothing of the others. Lives on the event loop of the cluster.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Literal, NoReturn

from qwen_aio.cluster.child import Child, Process, Tell
from qwen_aio.errors import SetupError

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
HEALTHY_S = 60.0  # who has lived so long starts with the first pause again
LOOK_S = 0.2
SETUP_STATUS = 1  # a program that tells its error in a sentence ends with this ...
SETUP_FAILURES = 3  # ... and if it was never ready, so many times in a row, trying on would change nothing
LAST_LINES = 12
SIGKILL = 9  # which Windows has no name for

State = Literal["starting", "ready", "down"]


class Keeper:
    """One child and its present life. `state` and `name` are for whoever shows them."""

    def __init__(
        self,
        child: Child,
        *,
        say: Tell,
        hear: Tell,
        on_change: Callable[[], None],
        told_memory: Callable[[], str],
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`say` takes what the keeper has to tell, `hear` what the child does; `on_change` is called at a new state.

        `told_memory` says how much memory is needed and available.
        """
        self.name = child.name
        self.state: State = "starting"
        self._child = child
        self._say = say
        self._hear = hear
        self._on_change = on_change
        self._told_memory = told_memory
        self._clock = clock
        self._pause = pause
        self._process: Process | None = None
        self._last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self._next_pause_s = FIRST_PAUSE_S
        self._setup_failures = 0

    async def keep(self) -> NoReturn:
        """Keep the child alive until cancelled; its present life goes on then, see `stop`.

        Raises SetupError for a child that tells of a mistake at every start.
        """
        while True:
            started_at = self._clock()
            ended = await self._live()
            if self._clock() - started_at >= HEALTHY_S:
                self._next_pause_s = FIRST_PAUSE_S
            self._say(f"{self.name} {ended}; starting it again in {self._next_pause_s:g} s")
            self._enter("down")
            await self._pause(self._next_pause_s)
            self._next_pause_s = min(2 * self._next_pause_s, LONGEST_PAUSE_S)

    async def stop(self, *, patience_s: float) -> None:
        """End the present life, after what it is doing; at once when patience is over. `keep` is over by now."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            await asyncio.wait_for(self._process.ended(), patience_s)
        except TimeoutError:
            self._say(f"{self.name} did not end within {patience_s:g} s")
            self.kill()
            await self._process.ended()

    def kill(self) -> None:
        """End the present life now."""
        if self._process is not None:
            self._process.kill()

    async def _live(self) -> str:
        """One life; how it ended, in words."""
        self._enter("starting")
        self._last_lines.clear()
        try:
            self._process = await self._child.start(self._listen)
        except OSError as exc:  # too many processes or files: that may pass
            return f"could not be started: {exc}"
        async with asyncio.TaskGroup() as life:
            looking = life.create_task(self._look(), name=f"waiting for {self.name}")
            status = await self._process.ended()
            looking.cancel()
        self._count_setup_failures(status)
        if status == -SIGKILL:
            return f"was killed by signal {SIGKILL}, most often for lack of memory ({self._told_memory()})"
        return _told(status)

    async def _look(self) -> None:
        while not await self._child.is_ready():
            await self._pause(LOOK_S)
        self._enter("ready")

    def _listen(self, line: str) -> None:
        self._last_lines.append(line)
        self._hear(f"{self.name} | {line}")

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


def _told(status: int | None) -> str:
    if status is None:
        return "ended"
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"
