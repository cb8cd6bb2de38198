"""Threads and memory of the C++ forward pass: after a fork, while nothing is computed, and where there is no more."""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from qwen_aio.engine.native.model import NativeQwen
from tests.engine.native.running import KERNELS, a_config, a_sequence, native, poisoned_pool, random_model, states_alone

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

BEST = KERNELS[-1]
IDS = list(range(60))
PATIENCE_S = 20


@pytest.fixture
def model() -> NativeQwen:
    return native(random_model(a_config(), "int8"), BEST, threads=3)


def in_a_fork(check: Callable[[], bool]) -> bool:
    """What `check` returns in a child of this process; False if it raises or does not end."""
    child = os.fork()
    if child == 0:
        is_right = False
        try:
            is_right = check()
        finally:
            os._exit(0 if is_right else 1)
    ended = os.pidfd_open(child)
    try:
        if not select.select([ended], [], [], PATIENCE_S)[0]:
            os.kill(child, 9)
    finally:
        os.close(ended)
    return os.waitpid(child, 0)[1] == 0


def threads() -> set[Path]:
    return set(Path("/proc/self/task").iterdir())


def is_asleep(thread: Path) -> bool:
    return (thread / "stat").read_text().rpartition(") ")[2].startswith("S")


def cpu_ns(thread: Path) -> int:
    return int((thread / "schedstat").read_text().split()[0])


def test_a_fork_makes_threads_of_its_own(model):
    before = states_alone(model, IDS)

    def check() -> bool:
        assert len(threads()) == 1
        found = states_alone(model, IDS)
        return len(threads()) == 3 and np.array_equal(before, found)

    assert in_a_fork(check)
    np.testing.assert_array_equal(before, states_alone(model, IDS))


def test_a_model_that_goes_takes_its_threads_along():
    before = threads()
    model = native(random_model(a_config(), "fp32"), BEST, threads=3)
    states_alone(model, IDS)
    assert len(threads() - before) == 2
    del model
    assert threads() == before


def test_threads_sleep_while_there_is_nothing_to_compute(model):
    before = threads()
    states_alone(model, IDS)
    helpers = threads() - before
    assert len(helpers) == 2
    deadline = time.monotonic() + PATIENCE_S
    while not all(map(is_asleep, helpers)):
        assert time.monotonic() < deadline
        os.sched_yield()
    used = {helper: cpu_ns(helper) for helper in helpers}
    select.select([], [], [], 0.05)
    assert {helper: cpu_ns(helper) for helper in helpers} == used


def test_three_threads_on_one_core_give_the_same_bits(model):
    expected = states_alone(model, IDS)

    def check() -> bool:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        return all(np.array_equal(states_alone(model, IDS), expected) for _ in range(5))

    assert in_a_fork(check)


@pytest.fixture
def half_a_core() -> Iterator[Path]:
    """A control group, which a process enters by its cgroup.procs."""
    name = f"qwen-aio-test-{os.getpid()}"
    first, second = Path("/sys/fs/cgroup/cpu") / name, Path("/sys/fs/cgroup") / name
    group, quota = (first, "cpu.cfs_quota_us") if first.parent.exists() else (second, "cpu.max")
    try:
        group.mkdir()
    except OSError as exc:
        pytest.skip(f"no control groups can be made here: {exc}")
    try:
        (group / quota).write_text("50000")  # of each 100,000 microseconds
        yield group
    except OSError as exc:
        pytest.skip(f"processor time cannot be limited here: {exc}")
    finally:
        group.rmdir()


def test_three_threads_on_half_a_core_give_the_same_bits(model, half_a_core):
    expected = states_alone(model, IDS)

    def check() -> bool:
        (half_a_core / "cgroup.procs").write_text("0")
        return all(np.array_equal(states_alone(model, IDS), expected) for _ in range(100))

    assert in_a_fork(check)


def limit_memory(more_bytes: int) -> None:
    """Of this process, to so much more than it has mapped now."""
    import resource

    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (mapped + more_bytes, resource.RLIM_INFINITY))


def free_memory() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def test_a_step_without_memory_is_a_memory_error_and_the_next_one_is_computed():
    config = a_config(intermediate_size=2**17, hidden_size=32, num_layers=1)  # no heap has room for 4000 such rows
    model = native(random_model(config, "fp32"), BEST, threads=2, num_positions=4000)
    expected = states_alone(model, IDS)

    def check() -> bool:
        pool, large = poisoned_pool(model, 4000), a_sequence([1] * 4000, range(4000), first_logit_row=3999)
        states_alone(model, IDS)  # in threads of its own
        limit_memory(16 * 2**20)
        with pytest.raises(MemoryError, match="no memory for a step of 4000 rows"):
            model.forward([large.next_span(4000)], pool)
        return np.array_equal(states_alone(model, IDS), expected)

    assert in_a_fork(check)


def test_threads_that_cannot_be_made_are_a_memory_error_and_those_that_could_are_ended():
    model = native(random_model(a_config(), "int8"), BEST, threads=16)

    def check() -> bool:
        limit_memory(40 * 2**20)  # a thread takes 8 MiB for its stack, or one of those that ended before
        with pytest.raises(MemoryError, match="no memory or no room for 16 threads"):
            states_alone(model, IDS)
        is_alone = len(threads()) == 1
        free_memory()
        states_alone(model, IDS)
        return is_alone

    assert in_a_fork(check)
