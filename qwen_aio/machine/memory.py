"""The available memory: the machine's, or less where a container's limit comes first.

Past either, Linux kills a process without a message.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # it ships no types

from qwen_aio.machine.cgroups import groups

MIB = 2**20


@dataclass(frozen=True)
class AvailableMemory:
    """In MB of 2**20 bytes, and which limit comes first."""

    mb: int
    is_limited: bool  # by a container, or another control group

    def __str__(self) -> str:
        bound = "within the limit of this container" if self.is_limited else "on this machine"
        return f"{self.mb} MB are available {bound}"


def available_memory(root: Path = Path("/")) -> AvailableMemory:
    """As of now; /sys and /proc are below `root`. A damaged file counts as missing."""
    on_machine: int = _mem_available(root) or psutil.virtual_memory().available
    in_groups = min(_rooms(root), default=on_machine)
    return AvailableMemory(min(on_machine, in_groups) // MIB, in_groups < on_machine)


def _mem_available(root: Path) -> int | None:
    with suppress(OSError, ValueError):
        found = re.search(r"^MemAvailable:\s+(\d+) kB", (root / "proc/meminfo").read_text(), re.MULTILINE)
        return int(found[1]) * 1024 if found else None
    return None


def _rooms(root: Path) -> Iterator[int]:
    """Bytes below the limit of every group that has one."""
    for version, folder in groups(root, "memory"):
        with suppress(OSError, ValueError):
            if version == 2:
                yield _room(folder, "memory.max", "memory.current", "inactive_file")
            else:
                yield _room(folder, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def _room(folder: Path, limit: str, usage: str, cached: str) -> int:
    """Counts the cache of files, which the system frees before it kills. OSError, ValueError."""
    # Without a limit: "max" in version 2, a number beyond any memory in version 1.
    most = int((folder / limit).read_text())
    used = int((folder / usage).read_text())
    found = re.search(rf"^{cached} (\d+)", (folder / "memory.stat").read_text(), re.MULTILINE)
    return max(0, most - used + (int(found[1]) if found else 0))
