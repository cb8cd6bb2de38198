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
    cores = physical_cores(root, allowed_cpus)
    quota = quota_cpus(root)
    # Half a core more would be a thread that waits half of the time, and makes the others wait.
    return max(1, cores if quota is None else min(cores, int(quota)))


def physical_cores(root: Path, allowed_cpus: Set[int]) -> int:
    """The number of cores of `allowed_cpus`; a CPU without known siblings is a core of its own."""
    return len({_siblings(root / f"sys/devices/system/cpu/cpu{cpu}/topology", cpu) for cpu in allowed_cpus})


def quota_cpus(root: Path) -> float | None:
    """CPU seconds per second that all groups of this process leave it; None if none limits it."""
    return min(_quotas(root), default=None)


def _siblings(topology: Path, cpu: int) -> frozenset[int]:
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
    for version, folder in groups(root, "cpu"):
        yield from _quota_v2(folder) if version == 2 else _quota_v1(folder)


def _quota_v2(group: Path) -> Iterator[float]:
    with suppress(OSError, ValueError, ZeroDivisionError):
        quota, period = (group / "cpu.max").read_text().split()
        if quota != "max" and int(quota) > 0:
            yield int(quota) / int(period)


def _quota_v1(group: Path) -> Iterator[float]:
    with suppress(OSError, ValueError, ZeroDivisionError):
        quota = int((group / "cpu.cfs_quota_us").read_text())
        if quota > 0:  # -1 is no quota
            yield quota / int((group / "cpu.cfs_period_us").read_text())
