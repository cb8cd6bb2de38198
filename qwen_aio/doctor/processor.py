"""What computes, on how many cores, in how much memory."""

from __future__ import annotations

from collections.abc import Set

from qwen_aio.doctor.finding import Finding
from qwen_aio.engine.native.bindings import TORCH, KernelChoice
from qwen_aio.machine.memory import AvailableMemory
from qwen_aio.worker.memory_need import MemoryNeed

PLAIN = "plain"  # the kernel without vector instructions
OF_AVX2 = ("avx2", "fma", "f16c")
OF_AVX512 = ("avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni")


def kernel_findings(choice: KernelChoice, flags: Set[str], *, is_built: bool) -> list[Finding]:
    """`is_built`: whether there is a library at all."""
    here = [flag for flag in (*OF_AVX2, *OF_AVX512) if flag in flags]
    known = f"{choice}; flags: {', '.join(here)}" if here else str(choice)
    if choice.name == TORCH:
        how = "" if is_built else "with g++ or clang++ of C++17 there, install qwen-aio again: its kernels are faster"
        return [Finding("note", known, how)]
    if choice.name == PLAIN:
        missing = [flag for flag in OF_AVX2 if flags and flag not in flags]
        how = "give a virtual machine the processor of its host (host-passthrough)" if missing else ""
        slow = f"{known}; it is slow for lack of {', '.join(missing)}" if missing else f"{known}; it is slow"
        return [Finding("note", slow, how)]
    return [Finding("ok", known)]


def core_findings(
    cores: int, *, num_cpus: int | None, quota: float | None, num_workers: int, num_threads: int
) -> list[Finding]:
    """`num_threads`: of all workers together."""
    limit = "none" if quota is None else f"{quota:g}"
    machine = f"usable cores: {cores}, CPUs of this machine: {num_cpus}, quota: {limit}"
    found = f"{machine}; workers: {num_workers}, threads of all: {num_threads}"
    if quota is not None and quota < 1:
        return [
            Finding("note", f"{found}; the system stops every step for a while", "give this container a whole core")
        ]
    if num_threads > cores:
        return [Finding("note", f"{found}; they wait for one another", "fewer --workers or --threads are faster")]
    return [Finding("ok", found)]


def memory_findings(need: MemoryNeed, available: AvailableMemory) -> list[Finding]:
    """Whether a start has the memory that it may take."""
    found = f"needs {need}; {available}"
    if need.fits(available):
        return [Finding("ok", found)]
    return [Finding("problem", f"{found}: the system may kill it without a word", need.savings)]
