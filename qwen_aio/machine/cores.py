"""The cores to compute on: physical ones that this process may use, within containers' quotas.

The second thread of a core (SMT) shares its multipliers, so that matrix products gain nothing from
it. A quota is time on any core; the system stops the threads beyond it in the middle of a product,
where all others wait for them. Linux has all this in files; other systems give the number of
physical cores.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Set
from contextlib import suppress
from pathlib import Path

import psutil  # type: ignore[import-untyped]  # it ships no types

from qwen_aio.machine.cgroups import groups

LARGEST_CPU = 2**16  # a list of CPUs that goes further is damaged


def usable_cores() -> int:
    """Cores this process may really use, at least one. A cluster divides them by its workers."""
    if not hasattr(os, "sched_getaffinity"):
        return max(1, psutil.cpu_count(logical=False) or os.cpu_count() or 1)
    return count_cores(Path("/"), allowed_cpus=os.sched_getaffinity(0))


def count_cores(root: Path, *, allowed_cpus: Set[int]) -> int:
    """As usable_cores, where /sys and /proc are below `root`. A damaged file counts as missing."""
    cores = len({_siblings(root / f"sys/devices/system/cpu/cpu{cpu}/topology", cpu) for cpu in allowed_cpus})
    quota = cpu_quota(root)
    # Half a core more would be a thread that waits half of the time, and makes the others wait.
    return max(1, cores if quota is None else min(cores, int(quota)))


def cpu_quota(root: Path = Path("/")) -> float | None:
    """CPU seconds per second that this process may take; None without a limit. /sys and /proc are below `root`."""
    return min(_quotas(root), default=None)


def _siblings(topology: Path, cpu: int) -> frozenset[int]:
    """The CPUs of one core; a CPU without known siblings is a core of its own."""
    for name in ("core_cpus_list", "thread_siblings_list"):  # the newer name first
        with suppress(OSError, ValueError):
            siblings = _cpu_list((topology / name).read_text())
            if cpu in siblings:
                return siblings
    return frozenset({cpu})


def _cpu_list(text: str) -> frozenset[int]:
    """`0-3,8` -> 0, 1, 2, 3, 8. Raises ValueError."""
    cpus: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if int(last or first) > LARGEST_CPU:
            raise ValueError(f"no machine has a CPU {last or first}")
        cpus.update(range(int(first), int(last or first) + 1))
    return frozenset(cpus)


def _quotas(root: Path) -> Iterator[float]:
    """CPU seconds per second that the groups of this process leave it."""
    for version, group in groups(root, "cpu"):
        names = ("cpu.max",) if version == 2 else ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        with suppress(OSError, ValueError, ZeroDivisionError):
            quota, period = " ".join((group / name).read_text() for name in names).split()
            if int(quota) > 0:  # without one it is "max" in version 2, -1 in version 1
                yield int(quota) / int(period)
