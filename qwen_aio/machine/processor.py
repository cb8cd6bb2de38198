"""The instruction sets of this processor, as Linux names them."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path


def cpu_flags(root: Path = Path("/")) -> frozenset[str]:
    """Those of the first CPU; empty where the system does not tell. /proc is below `root`."""
    with suppress(OSError):
        text = (root / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        if found := re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE):
            return frozenset(found[1].split())
    return frozenset()
