"""How many cores there are, on machines made of files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_aio.machine.cores import count_cores, cpu_quota, usable_cores

CPU = "sys/devices/system/cpu"
GROUPS = "sys/fs/cgroup"
FOUR_CORES_TWICE = {f"{CPU}/cpu{cpu}/topology/thread_siblings_list": f"{cpu % 4},{cpu % 4 + 4}\n" for cpu in range(8)}


def machine(root: Path, files: Mapping[str, str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def cores(root: Path, files: Mapping[str, str], *, allowed: range = range(8)) -> int:
    return count_cores(machine(root, files), allowed_cpus=set(allowed))


def test_this_process_may_use_at_least_one_core():
    assert usable_cores() >= 1


def test_siblings_count_once(tmp_path):
    assert cores(tmp_path, FOUR_CORES_TWICE) == 4


def test_only_cpus_that_may_be_used_count(tmp_path):
    assert cores(tmp_path, FOUR_CORES_TWICE, allowed=range(2)) == 2
    assert cores(tmp_path, FOUR_CORES_TWICE, allowed=range(3, 5)) == 2  # of two cores
    assert cores(tmp_path, FOUR_CORES_TWICE, allowed=range(0, 8, 4)) == 1  # both of one core


def test_a_list_may_be_a_range_and_the_newer_name_goes_first(tmp_path):
    pairs = {f"{CPU}/cpu{cpu}/topology/core_cpus_list": f"{cpu // 2 * 2}-{cpu // 2 * 2 + 1}\n" for cpu in range(8)}
    assert cores(tmp_path, FOUR_CORES_TWICE | pairs, allowed=range(2)) == 1


def test_a_cpu_that_tells_nothing_or_nonsense_is_a_core_of_its_own(tmp_path):
    offline = {name: text for name, text in FOUR_CORES_TWICE.items() if "/cpu5/" not in name}  # its folder is empty
    assert cores(tmp_path / "offline", offline | {f"{CPU}/cpu1/topology/thread_siblings_list": "1\n"}) == 5
    for number, text in enumerate(["", "garbage", "3-", "0-99999999999", "7", "\x00", "0,,4"]):
        siblings = {f"{CPU}/cpu0/topology/thread_siblings_list": text}
        assert cores(tmp_path / str(number), siblings, allowed=range(2)) == 2


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({f"{GROUPS}/cpu.max": "max 100000\n"}, 4),
        ({f"{GROUPS}/cpu.max": "200000 100000\n"}, 2),
        ({f"{GROUPS}/cpu.max": "290000 100000\n"}, 2),
        ({f"{GROUPS}/cpu.max": "50000 100000\n"}, 1),
        ({f"{GROUPS}/cpu.max": "1600000 100000\n"}, 4),
        ({f"{GROUPS}/cpu.max": "garbage"}, 4),
        ({f"{GROUPS}/cpu.max": "100000 0"}, 4),
        ({f"{GROUPS}/cpu.max": "-1 100000"}, 4),
        ({"proc/self/cgroup": "0::/a/b\n", f"{GROUPS}/a/b/cpu.max": "100000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/a/b\n", f"{GROUPS}/a/cpu.max": "300000 100000\n"}, 3),
        ({"proc/self/cgroup": "0::/host/only\n", f"{GROUPS}/cpu.max": "100000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/../beside\n", f"{GROUPS}/cpu.max": "100000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/a\n", f"{GROUPS}/b/cpu.max": "100000 100000\n"}, 4),
        ({"proc/self/cgroup": "nonsense\n", f"{GROUPS}/cpu.max": "100000 100000\n"}, 1),
    ],
)
def test_a_quota_of_the_own_group_or_of_any_around_it_limits(tmp_path, files, expected):
    assert cores(tmp_path, FOUR_CORES_TWICE | files) == expected


def test_the_quota_is_the_smallest_one_and_need_not_be_whole(tmp_path):
    assert cpu_quota(machine(tmp_path, {f"{GROUPS}/cpu.max": "max 100000\n"})) is None
    files = {
        "proc/self/cgroup": "0::/a\n",
        f"{GROUPS}/a/cpu.max": "50000 100000\n",
        f"{GROUPS}/cpu.max": "150000 100000\n",
    }
    assert cpu_quota(machine(tmp_path, files)) == 0.5


@pytest.mark.parametrize(
    ("quota", "expected"), [("-1", 4), ("200000", 2), ("250000", 2), ("10000", 1), ("", 4), ("many", 4)]
)
@pytest.mark.parametrize("group", ["", "docker/abc/"])
@pytest.mark.parametrize("mount", ["cpu", "cpu,cpuacct"])
def test_a_quota_of_the_first_kind_of_groups_limits_as_well(tmp_path, quota, expected, group, mount):
    files = {
        "proc/self/cgroup": "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n0::/\n",
        f"{GROUPS}/{mount}/{group}cpu.cfs_quota_us": f"{quota}\n",
        f"{GROUPS}/{mount}/{group}cpu.cfs_period_us": "100000\n",
    }
    assert cores(tmp_path, FOUR_CORES_TWICE | files) == expected


@given(siblings=st.text(max_size=20), quota=st.text(max_size=20), group=st.text(max_size=20), allowed=st.integers(0, 8))
def test_whatever_the_files_say_the_count_is_sound(tmp_path_factory, siblings, quota, group, allowed):
    files = {
        f"{CPU}/cpu0/topology/core_cpus_list": siblings,
        f"{GROUPS}/cpu.max": quota,
        "proc/self/cgroup": f"0::{group}\n1:cpu:{group}",
    }
    made = {name: text.encode("utf-8", "replace").decode() for name, text in files.items()}
    root = machine(tmp_path_factory.mktemp("machine"), made)
    assert 1 <= count_cores(root, allowed_cpus=set(range(allowed))) <= max(1, allowed)
