"""Memory for keys and values, which a model takes only as far as it uses it."""

from __future__ import annotations

import mmap
import sys


def lazy_zeros(num_bytes: int) -> mmap.mmap:
    """Memory allocated on first use, in small pages: a slot touches one per head and layer."""
    if sys.platform == "win32":
        return mmap.mmap(-1, num_bytes)
    zeros = mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        zeros.madvise(mmap.MADV_NOHUGEPAGE)
    return zeros
