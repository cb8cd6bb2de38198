"""Ends a child when the process that started it ends, however that one dies.

The parent alone holds the write end of a pipe; the system closes it in every process that the
parent starts. Every child has the read end as its standard input. Nothing is ever written, so a
read returns only once the system has closed a dead parent's files. The parent need not do anything
for it, and it works wherever there are pipes.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping

VARIABLE = "QWEN_AIO_LIFELINE"  # between `cluster` and its children; not a setting
STANDARD_INPUT = 0


class Lifeline:
    """The parent's end. Closing it ends the children: most parents never do."""

    def __init__(self) -> None:
        self.standard_input, self._held = os.pipe()  # a child inherits only what is passed on

    def environment(self) -> Mapping[str, str]:
        """The variables that a child needs."""
        return {**os.environ, VARIABLE: "stdin"}

    def close(self) -> None:
        """End the children that are left."""
        os.close(self._held)
        os.close(self.standard_input)


def hold_if_given() -> None:
    """In a child: end with the parent. A process without a lifeline lives on its own."""
    if VARIABLE in os.environ:
        hold()


def hold() -> None:
    """End this process, at once, when the other end of its standard input is gone."""
    threading.Thread(target=_end_with_parent, name="lifeline", daemon=True).start()


def _end_with_parent() -> None:
    while os.read(STANDARD_INPUT, 1):
        pass
    os._exit(1)
