"""A program with a terminal of its own, and what a person would see and type there."""

from __future__ import annotations

import codecs
import os
import select
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

PATIENCE_S = 60.0


class Terminal:
    """Reads only what is waited for, so that two waits see two things."""

    def __init__(self, process: subprocess.Popen[bytes], file: int) -> None:
        self.process = process
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a letter may come in two pieces
        self._unread = ""

    def type(self, text: str) -> None:
        os.write(self._file, text.encode())

    def wait_for(self, text: str) -> str:
        """What has appeared since the last wait, up to and including `text`."""
        deadline = time.monotonic() + PATIENCE_S
        while text not in self._unread:
            ready, _, _ = select.select([self._file], [], [], deadline - time.monotonic())
            if not ready or not self._read():
                raise AssertionError(f"{text!r} did not appear, but {self._unread!r}")
        seen, found, self._unread = self._unread.partition(text)
        return seen + found

    def rest(self) -> str:
        """What appears until the program has ended."""
        while self._read():
            pass
        return self._unread

    def _read(self) -> bool:
        try:
            chunk = os.read(self._file, 65536)
        except OSError:  # Linux: the other side is closed
            return False
        self._unread += self._decoder.decode(chunk)
        return bool(chunk)


@contextmanager
def terminal(command: Sequence[str], *, cwd: Path, **variables: str) -> Iterator[Terminal]:
    """`command` in a terminal; gone at the end."""
    ours, theirs = os.openpty()
    environment: Mapping[str, str] = {**os.environ, "TERM": "xterm", **variables}
    process = subprocess.Popen(command, cwd=cwd, env=environment, preexec_fn=partial(os.login_tty, theirs))
    os.close(theirs)
    try:
        yield Terminal(process, ours)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
