"""What is said of kernels, cores and memory, for machines that are made up."""

from __future__ import annotations

import pytest

from qwen_aio.doctor.processor import core_findings, kernel_findings, memory_findings
from qwen_aio.engine.native.bindings import KernelChoice
from qwen_aio.machine.memory import AvailableMemory
from qwen_aio.machine.processor import cpu_flags
from qwen_aio.worker.memory_need import MemoryNeed

BEST = "the best of this processor"
AVX2 = frozenset({"sse2", "avx2", "fma", "f16c"})


def test_a_kernel_with_vectors_is_right():
    (found,) = kernel_findings(KernelChoice("avx2", BEST), AVX2, is_built=True)
    assert (found.mark, found.found) == ("ok", f"kernel avx2: {BEST}; flags: avx2, fma, f16c")


def test_without_the_library_it_is_said_how_to_get_it():
    (found,) = kernel_findings(KernelChoice("torch", "the kernels were not built"), AVX2, is_built=False)
    assert found.mark == "note" and "not built" in found.found and "install qwen-aio again" in found.remedy


def test_torch_that_was_asked_for_needs_no_advice():
    (found,) = kernel_findings(KernelChoice("torch", "asked for by QWEN_AIO_KERNEL"), AVX2, is_built=True)
    assert (found.mark, found.remedy) == ("note", "")


@pytest.mark.parametrize(
    ("flags", "words", "advice"),
    [
        ({"sse2", "fma"}, "slow for lack of avx2, f16c", "host-passthrough"),
        (set(), "it is slow", ""),  # nothing is known of the processor
        (AVX2, "it is slow", ""),  # asked for
    ],
)
def test_the_plain_kernel_is_slow_and_why(flags, words, advice):
    (found,) = kernel_findings(KernelChoice("plain", BEST), frozenset(flags), is_built=True)
    assert (
        found.mark == "note"
        and found.found.endswith(words)
        and advice in found.remedy
        and bool(advice) == bool(found.remedy)
    )


@pytest.mark.parametrize(
    ("cores", "quota", "threads", "mark", "words"),
    [
        (4, None, 4, "ok", "usable cores: 4, CPUs of this machine: 8, quota: none"),
        (2, 2.5, 2, "ok", "quota: 2.5"),
        (1, 0.5, 1, "note", "quota: 0.5"),
        (2, None, 4, "note", "threads of all: 4; they wait for one another"),
    ],
)
def test_cores_are_those_that_may_be_used(cores, quota, threads, mark, words):
    (found,) = core_findings(cores, num_cpus=8, quota=quota, num_workers=2, num_threads=threads)
    assert found.mark == mark and words in found.found


@pytest.mark.parametrize(("available_mb", "mark"), [(1000, "ok"), (999, "problem")])
def test_memory_has_to_suffice_for_the_smallest_precision(available_mb, mark):
    need = MemoryNeed({"int8": 500, "fp32": 2000}, kv=100, rest=400, smaller=None)
    (found,) = memory_findings(need, AvailableMemory(available_mb, is_limited=True))
    assert found.mark == mark and "within the limit of this container" in found.found
    assert ("a smaller --kv-mb" in found.remedy) == (mark == "problem")


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx2 fma\n\nprocessor\t: 1\nflags\t\t: none\n", {"fpu", "avx2", "fma"}),
        ("Features\t: fp asimd\n", {"fp", "asimd"}),
        ("no such line", set()),
    ],
)
def test_flags_are_those_of_the_first_cpu(tmp_path, text, flags):
    assert cpu_flags(tmp_path) == frozenset()
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cpuinfo").write_text(text)
    assert cpu_flags(tmp_path) == flags
