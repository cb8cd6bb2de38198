"""What a child's life hangs on: it ends when the process that started it does, however that one dies.

The parent holds the write end of one pipe, and nobody else does: it is closed in whatever the parent starts. Every
child has the read end as its standard input. Nothing is ever written, so a read returns only once the system has closed
a dead parent's files. That needs no help of the parent, and works wherever there are pipes.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping

VARIABLE = "QWEN_AIO_LIFELINE"  # between `cluster` and its children; not a setting
STANDARD_INPUT = 0


class Lifeline:
    """The parent's end. To let go of it is to end the children, so it is mostly held as long as the process lives."""

    def __init__(self) -> None:
        self.standard_input, self._held = os.pipe()  # neither is inherited unless it is handed over

    def environment(self) -> Mapping[str, str]:
        """What a child has to be told."""
        return {**os.environ, VARIABLE: "stdin"}

    def close(self) -> None:
        """Let go, and end the children that are left."""
        os.close(self._held)
        os.close(self.standard_input)


def hold_if_given() -> None:
    """In a child: end with the parent. A process that nobody gave a lifeline lives on its own."""
    if VARIABLE in os.environ:
        hold()


def hold() -> None:
    """End this process, at once, when the other end of its standard input is gone."""
    threading.Thread(target=_end_with_parent, name="lifeline", daemon=True).start()


def _end_with_parent() -> None:
    while os.read(STANDARD_INPUT, 1):
        pass
    os._exit(1)
