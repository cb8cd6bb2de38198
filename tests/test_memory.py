"""How much memory there is, on machines made of files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from qwen_aio.machine.memory import MIB, AvailableMemory, available_memory

MACHINE = {"proc/meminfo": "MemTotal: 16384000 kB\nMemFree: 1 kB\nMemAvailable:    8192000 kB\n"}  # 8000 MB
V1, V2 = "sys/fs/cgroup/memory", "sys/fs/cgroup"


def group(folder: str, *, limit: object, used_mb: int = 0, cached_mb: int = 0) -> dict[str, str]:
    """A group of version 2, or 1 where the folder is one of its."""
    names = ("memory.max", "memory.current", "inactive_file")
    if folder.startswith(V1):
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    amount = limit * MIB if isinstance(limit, int) else limit
    return {
        f"{folder}/{names[0]}": f"{amount}\n",
        f"{folder}/{names[1]}": f"{used_mb * MIB}\n",
        f"{folder}/memory.stat": f"anon 5\n{names[2]} {cached_mb * MIB}\nfile 7\n",
    }


def memory(root: Path, files: Mapping[str, str]) -> AvailableMemory:
    for name, content in (MACHINE | files).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return available_memory(root)


def test_there_is_some_here() -> None:
    assert available_memory().mb > 0


@pytest.mark.parametrize(
    ("files", "mb"),
    [
        ({}, 8000),
        (group(V2, limit="max"), 8000),
        (group(V2, limit=2000), 2000),
        (group(V2, limit=2000, used_mb=500), 1500),
        (group(V2, limit=2000, used_mb=500, cached_mb=300), 1800),
        (group(V2, limit=2000, used_mb=2100), 0),
        (group(V2, limit=16000), 8000),
        ({"proc/self/cgroup": "0::/a/b\n", **group(f"{V2}/a", limit=900), **group(f"{V2}/a/b", limit=1000)}, 900),
        ({"proc/self/cgroup": "4:memory:/a\n0::/\n", **group(f"{V1}/a", limit=700, used_mb=100)}, 600),
        ({"proc/self/cgroup": "4:memory:/a\n0::/\n", **group(V1, limit=700, cached_mb=100, used_mb=100)}, 700),
        ({"proc/self/cgroup": "4:memory:/\n", **group(V1, limit=9223372036854771712 // MIB)}, 8000),
        ({f"{V2}/memory.max": "garbage"}, 8000),
        ({f"{V2}/memory.max": "1048576"}, 8000),  # of which nobody knows how much is used
    ],
)
def test_the_nearest_limit_counts_less_what_is_used(tmp_path: Path, files: dict[str, str], mb: int) -> None:
    assert memory(tmp_path, files) == AvailableMemory(mb, is_limited=mb != 8000)


def test_what_bounds_it_is_reported(tmp_path: Path) -> None:
    assert str(memory(tmp_path, {})) == "8000 MB are available on this machine"
    assert str(memory(tmp_path, group(V2, limit=512))) == "512 MB are available within the limit of this container"


def test_a_machine_that_tells_nothing_is_asked_in_another_way(tmp_path: Path) -> None:
    assert memory(tmp_path, {"proc/meminfo": "MemTotal: 1 kB\n"}).mb > 0
