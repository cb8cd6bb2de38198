"""Standard output and error that never fail: text that cannot be written is dropped, and noted.

A reader that has closed the pipe (`| head -1`) or a full disk must not end a server, and is no bug
that deserves a traceback. The exit status says that something was lost.
"""

from __future__ import annotations

import errno
import io
import sys
from typing import Any

from qwen_aio.startup.messages import say

CLOSED_STATUS = 141  # as of a program that SIGPIPE has ended
FULL_STATUS = 74  # EX_IOERR


class ForgivingFile(io.RawIOBase):
    """A file whose writes never fail; `lost` is why the first one would have."""

    def __init__(self, file: io.RawIOBase) -> None:
        self._file = file
        self.lost: OSError | None = None

    def write(self, data: memoryview, /) -> int | None:  # type: ignore[override]  # a buffer passes this
        """As the file does; where that raises OSError, `data` is dropped."""
        try:
            return self._file.write(data)
        except OSError as exc:
            self.lost = self.lost or exc
            return len(data)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._file.fileno()

    def isatty(self) -> bool:
        return self._file.isatty()


def secure_streams() -> ForgivingFile | None:
    """Make the streams of this process forgiving, and UTF-8; the file of standard output.

    None for a process that has no standard output.
    """
    if isinstance(sys.stdin, io.TextIOWrapper):
        # PowerShell puts a byte-order mark before what it pipes.
        sys.stdin.reconfigure(encoding="utf-8-sig", errors="replace")
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr, _ = _secured(sys.stderr)
    if not isinstance(sys.stdout, io.TextIOWrapper):
        return None
    sys.stdout, output = _secured(sys.stdout)
    return output


def status_after(output: ForgivingFile | None, status: int, *, program: str) -> int:
    """`status`, unless that is 0 and some output was lost. Prints a line about a full disk."""
    if output is None:
        return status
    sys.stdout.flush()
    if output.lost is None or status != 0:
        return status
    if output.lost.errno == errno.EPIPE:
        return CLOSED_STATUS
    say(f"{program}: not everything could be printed: {output.lost.strerror}", file=sys.stderr)
    return FULL_STATUS


def _secured(stream: io.TextIOWrapper) -> tuple[io.TextIOWrapper, ForgivingFile]:
    stream.flush()
    below: Any = stream.buffer  # with -u it is the file itself
    is_buffered = isinstance(below, io.BufferedWriter)
    file = ForgivingFile(below.raw if is_buffered else below)
    buffer: Any = io.BufferedWriter(file) if is_buffered else file
    lines = stream.line_buffering
    return io.TextIOWrapper(buffer, "utf-8", "replace", line_buffering=lines, write_through=not is_buffered), file
