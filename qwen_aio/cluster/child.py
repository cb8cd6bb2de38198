"""A child of the cluster, and the plain way to start one. keeper.py keeps it alive."""

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

OnLine = Callable[[str], None]  # called with each line of output


class Process(Protocol):
    """A running child. Signalling one that has ended does nothing."""

    def terminate(self) -> None:
        """Ask it to finish its work and end."""

    def kill(self) -> None:
        """End it now."""

    async def ended(self) -> int | None:
        """Wait for its end and its last line; its exit status, or a signal's number made negative.

        None if the status is unknown. Several tasks may wait, and stop waiting.
        """


@dataclass(frozen=True)
class Child:
    """A name, and how to start one Process after another for it."""

    name: str
    start: Callable[[OnLine], Awaitable[Process]]  # raises OSError
    is_ready: Callable[[], Awaitable[bool]]


class Subprocess:
    """A Process started from a command. It starts no others: its output ends when it does."""

    def __init__(self, process: asyncio.subprocess.Process, reading: asyncio.Task[None]) -> None:
        self._process = process
        self._reading = reading

    def terminate(self) -> None:
        with suppress(ProcessLookupError):
            self._process.terminate()

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()

    async def ended(self) -> int:
        await asyncio.wait({self._reading})
        return await self._process.wait()


async def spawn(
    command: Sequence[str], on_line: OnLine, *, lifeline: Lifeline, inherited_files: tuple[int, ...] = ()
) -> Subprocess:
    """Start `command` in a group of its own: Ctrl-C is the parent's affair. Raises OSError."""
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
    return Subprocess(process, asyncio.create_task(read_lines(process.stdout, on_line)))


async def read_lines(output: asyncio.StreamReader, on_line: OnLine) -> None:
    """Call `on_line` with every line until the end. One longer than CHUNK comes in parts."""
    rest = b""
    while chunk := await output.read(CHUNK):
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > CHUNK:
            lines, rest = [*lines, rest], b""
        for line in lines:
            on_line(line.decode("utf-8", "replace").rstrip("\r"))
    if rest:
        on_line(rest.decode("utf-8", "replace"))
