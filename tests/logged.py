"""Waits for a line in the log of this process."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

WAITING = "waiting for another process"  # logged by a load that finds the model's lock taken


@contextmanager
def logged(text: str) -> Iterator[threading.Event]:
    """Set once any thread logs a line with `text`."""
    event, logger = threading.Event(), logging.getLogger("qwen_aio")
    handler = logging.Handler()
    handler.emit = lambda record: event.set() if text in record.getMessage() else None  # type: ignore[method-assign]
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield event
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
