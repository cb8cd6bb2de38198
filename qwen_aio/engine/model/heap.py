"""What glibc keeps of freed memory, given back to the system."""

from __future__ import annotations

import ctypes
import sys


def trim_heap() -> None:
    """Give back what is free: converting weights leaves hundreds of megabytes. Does nothing without glibc."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
