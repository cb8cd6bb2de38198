"""A child of the cluster, and the plain way to start one. How long it is kept alive is keeper.py's business."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from qwen_aio.cluster.lifeline import Lifeline

CHUNK = 65536

Tell = Callable[[str], None]  # takes one line


class Process(Protocol):
    """One life of a child. To signal one that is gone does nothing."""

    def terminate(self) -> None:
        """Ask it to end what it does, and then itself."""

    def kill(self) -> None:
        """End it now."""

    async def ended(self) -> int | None:
        """Wait until it is gone and its last line is told; its exit status, or a signal's number made negative.

        None if nobody knows. Anybody may wait, and stop waiting.
        """


@dataclass(frozen=True)
class Child:
    """Something to be kept alive: one Process after another."""

    name: str
    start: Callable[[Tell], Awaitable[Process]]  # its lines go to what is given; raises OSError
    is_ready: Callable[[], Awaitable[bool]]


class Subprocess:
    """A Process started from a command, which starts no others: its end is the end of its output, too."""

    def __init__(self, process: asyncio.subprocess.Process, telling: asyncio.Task[None]) -> None:
        self._process = process
        self._telling = telling

    def terminate(self) -> None:
        """See Process."""
        with suppress(ProcessLookupError):
            self._process.terminate()

    def kill(self) -> None:
        """See Process."""
        with suppress(ProcessLookupError):
            self._process.kill()

    async def ended(self) -> int:
        """See Process."""
        await asyncio.wait({self._telling})
        return await self._process.wait()


async def spawn(
    command: Sequence[str], tell: Tell, *, lifeline: Lifeline, inherited_files: tuple[int, ...] = ()
) -> Subprocess:
    """Start `command`, in a group of its own: a terminal's Ctrl-C is for the parent to act on. Raises OSError."""
    own_group: dict[str, Any] = {"process_group": 0}
    if sys.platform == "win32":
        own_group = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=lifeline.standard_input,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=lifeline.environment(),
        pass_fds=inherited_files,
        **own_group,
    )
    assert process.stdout is not None
    return Subprocess(process, asyncio.create_task(tell_lines(process.stdout, tell)))


async def tell_lines(output: asyncio.StreamReader, tell: Tell) -> None:
    """Tell every line of `output` until it ends. A line longer than CHUNK is told in parts."""
    rest = b""
    while chunk := await output.read(CHUNK):
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > CHUNK:
            lines, rest = [*lines, rest], b""
        for line in lines:
            tell(line.decode("utf-8", "replace").rstrip("\r"))
    if rest:
        tell(rest.decode("utf-8", "replace"))
