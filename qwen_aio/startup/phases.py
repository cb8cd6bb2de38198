"""What a start is doing now: one line on a terminal, gone when it is done. Nowhere else: a log has its own lines.

Imports nothing heavy: the first phase is to import the rest. Uses no escape codes, so
that every console understands it: a line of the log, which is longer, simply covers it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from qwen_aio.startup.messages import columns, translated


@contextmanager
def phase(doing: str) -> Iterator[None]:
    """Show `doing`, a few words, while the body runs. One phase at a time."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield
        return
    shown = translated(doing)
    _overwrite(shown)
    try:
        yield
    finally:
        _overwrite(" " * columns(shown))


def _overwrite(line: str) -> None:
    sys.stderr.write(f"{line}\r")
    sys.stderr.flush()
