"""A process of one side: stopped (SIGSTOP) whenever it is not its turn, so that it cannot spin meanwhile. Linux."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

from benchmarks.servers import ROOT

THREADS = 2
ENVIRONMENT = {"OMP_NUM_THREADS": str(THREADS), "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
LONGEST_S = 300.0  # of one command or start
END_WITHIN_S = 10.0


class SideFailed(Exception):
    """A side did not do what it was asked; the message says where its log lies."""


class Process:
    """One side's process and what it inherits. Owned by `started`."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self.log = log

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        return self._process.returncode is not None

    @contextmanager
    def turn(self) -> Iterator[None]:
        """It runs for so long. Raises SideFailed."""
        if self.has_ended:
            raise SideFailed(f"it has ended; see {self.log}")
        os.killpg(self.pid, signal.SIGCONT)
        try:
            yield
        finally:
            self.pause()

    def pause(self) -> None:
        """Stop it until its next turn."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGSTOP)

    async def ask(self, verb: str, **arguments: object) -> dict[str, Any]:
        """What a driver (driving.py) answers to one command. Raises SideFailed."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"verb": verb, **arguments}).encode() + b"\n")
        return await self.answer()

    async def answer(self) -> dict[str, Any]:
        """The next line that a driver writes; its first says that it has loaded. Raises SideFailed."""
        assert self._process.stdout is not None
        async with asyncio.timeout(LONGEST_S):
            line = await self._process.stdout.readline()
        if not line:
            raise SideFailed(f"a driver has ended; see {self.log}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def output(self) -> str:
        """Everything it writes to stdout until it ends by itself. Raises SideFailed."""
        async with asyncio.timeout(LONGEST_S):
            told, _ = await self._process.communicate()
        if self._process.returncode:
            raise SideFailed(f"it ended with status {self._process.returncode}; see {self.log}")
        return told.decode()

    def pss_mb(self, *, without_mb: float = 0) -> float:
        """Memory that is really its own, in MiB; less what is touched of one large block of `without_mb`."""
        total_mb = _mb("Pss", Path(f"/proc/{self.pid}/smaps_rollup").read_text())
        if without_mb == 0:
            return total_mb
        mappings = re.split(r"^(?=[0-9a-f]+-)", Path(f"/proc/{self.pid}/smaps").read_text(), flags=re.MULTILINE)[1:]
        # The kernel may have joined it with a neighbour, and a page at its end may be missing.
        blocks = sorted((_mb("Size", text), _mb("Pss", text)) for text in mappings)
        touched = next((pss for size, pss in blocks if size > without_mb * 0.98), 0.0)
        return total_mb - min(touched, without_mb)

    async def end(self) -> None:
        """Politely, then not."""
        for sign in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError, TimeoutError):
                os.killpg(self.pid, sign)
                os.killpg(self.pid, signal.SIGCONT)
                async with asyncio.timeout(END_WITHIN_S):
                    await self._process.wait()


def _mb(name: str, text: str) -> float:
    found = re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024


@asynccontextmanager
async def started(*command: str | Path, log: Path, is_read: bool) -> AsyncIterator[Process]:
    """`command` in a process group of its own, running; ended whatever happens.

    Its noise goes to `log`, and so does its stdout unless somebody reads that.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("QWEN_AIO_")}
    with log.open("wb") as noise:
        process = await asyncio.create_subprocess_exec(
            *map(str, command),
            cwd=ROOT,
            env=inherited | ENVIRONMENT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE if is_read else noise,
            stderr=noise,
            start_new_session=True,
        )
    side = Process(process, log)
    try:
        yield side
    finally:
        await side.end()


async def output(*command: str | Path, log: Path) -> str:
    """What a program that ends by itself writes to stdout. Raises SideFailed."""
    async with started(*command, log=log, is_read=True) as side:
        return await side.output()
