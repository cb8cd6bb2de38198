"""The library for 64-bit ARM, built by a cross compiler and run by qemu: machines that test this project are often x86."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_aio.engine.native import bindings
from tests.campaign import only_in_campaign
from tests.e2e.processes import ROOT
from tests.engine.native import test_kernels
from tests.engine.native.reference import ReferenceModel
from tests.engine.native.remote import RemoteLibrary, remote_library
from tests.engine.native.running import KERNELS, a_config, native, random_model
from tests.engine.native.test_emulated import SHAPES, computed

COMPILER = "aarch64-linux-gnu-g++"
HERE = "tests/engine/native"
# Of a Raspberry Pi 4, and of what clouds and newer boards have.
PLAIN, DOTPROD = ("cortex-a72", "plain"), ("neoverse-n1", "dotprod")

pytestmark = [
    only_in_campaign,
    pytest.mark.skipif(not shutil.which(COMPILER) or not shutil.which("qemu-aarch64"), reason="scripts/install-arm"),
]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What setup.py makes for ARM: the library in lib/, its objects in temp/."""
    folder = tmp_path_factory.mktemp("arm")
    target = {"_PYTHON_HOST_PLATFORM": "linux-aarch64", "CC": "aarch64-linux-gnu-gcc", "CXX": COMPILER}
    command = [sys.executable, "setup.py", "--quiet", "build_ext"]
    command += ["--build-lib", str(folder / "lib"), "--build-temp", str(folder / "temp")]
    subprocess.run(command, cwd=ROOT, env=os.environ | target, check=True)
    return folder


def compiled(build: Path, name: str, *files: str | Path) -> Path:
    """A program of these files, in the folder of the build."""
    library = next(build.glob("lib/**/libqwen_aio.so")).parent
    flags = ["-std=c++17", "-O1", "-ffp-contract=off", "-Inative", "-pthread", f"-Wl,-rpath,{library}"]
    subprocess.run([COMPILER, *flags, *map(str, files), "-o", str(build / name)], cwd=ROOT, check=True)
    return build / name


def on(processor: str, program: Path) -> list[str]:
    """The command that runs `program` on that processor."""
    return ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu", "-cpu", processor, str(program)]


@pytest.fixture(scope="module")
def program(build: Path) -> Path:
    return compiled(build, "remote", f"{HERE}/remote.cpp", *build.glob("lib/**/libqwen_aio.so"))


@pytest.fixture(params=[PLAIN, DOTPROD], ids=str)
def kernel(request: pytest.FixtureRequest, program: Path) -> Iterator[str]:
    """Its library computes, on a processor for which it is the best."""
    processor, name = request.param
    with remote_library(on(processor, program)):
        yield name


@pytest.fixture
def library(request: pytest.FixtureRequest, program: Path) -> Iterator[RemoteLibrary]:
    with remote_library(on(request.param, program)) as library:
        yield library


@pytest.mark.parametrize(
    ("library", "best"), [PLAIN, DOTPROD, ("cortex-a53", "plain"), ("max", "dotprod")], indirect=["library"]
)
def test_each_processor_gets_the_best_kernel_that_it_runs(library, best):
    assert library.qwen_aio_kernel(b"") == best.encode()
    assert library.qwen_aio_kernel(b"plain") == b"plain"
    assert library.qwen_aio_kernel(b"dotprod") == (b"dotprod" if best == "dotprod" else None)
    assert library.qwen_aio_kernel(b"avx2") is None
    assert library.qwen_aio_layout() == bindings.LAYOUT


def disassembled(build: Path) -> dict[str, str]:
    """By the names of the objects."""
    command = ["aarch64-linux-gnu-objdump", "--disassemble", "--no-show-raw-insn"]
    files = sorted(build.glob("temp/native/*.o"))
    return {file.stem: subprocess.check_output([*command, str(file)], text=True) for file in files}


def test_dot_products_are_in_their_own_object_alone(build):
    objects = disassembled(build)
    assert {"choose", "kernel_dotprod", "kernel_plain", "model"} <= objects.keys()
    assert {name for name, code in objects.items() if re.search(r"\t[su]dot\t", code)} == {"kernel_dotprod"}
    assert "\tsmull\t" in objects["kernel_plain"]  # the compiler's vectoriser is at work


def test_no_kernel_defines_a_function_that_the_linker_could_take_for_all(build):
    kernels = map(str, build.glob("temp/native/kernel_*.o"))
    symbols = subprocess.check_output(["aarch64-linux-gnu-nm", *kernels], text=True)
    assert re.findall("^[0-9a-f ]{16} [WVu] .*", symbols, re.MULTILINE) == []


def test_halves_are_those_of_the_plain_kernel(build):
    program = compiled(build, "halves", f"{HERE}/emulated/halves.cpp")
    done = subprocess.run(on("cortex-a72", program), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("processor", [PLAIN[0], DOTPROD[0]])
def test_bits_are_those_of_each_sequence_alone_in_any_number_of_threads(build, processor):
    names = ["choose", "model", "team", "kernel_plain", "kernel_dotprod"]
    program = compiled(build, "driver", f"{HERE}/driver.cpp", *(build / f"temp/native/{name}.o" for name in names))
    done = subprocess.run([*on(processor, program), "10", "1"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_any_model_is_close_to_numpy_and_the_same_in_any_company(kernel):
    test = test_kernels.test_any_model_in_any_company_and_cut_is_close_to_numpy_and_the_same_to_the_last_bit

    @settings(max_examples=60)  # each takes half a second
    @given(st.data())
    def of_any_model(data):
        test.hypothesis.inner_test(kernel, data)

    of_any_model()


@pytest.mark.parametrize("precision", test_kernels.PRECISIONS)
def test_rows_of_a_label_tree_see_the_prompt_and_their_ancestors_alone(kernel, precision):
    test_kernels.test_rows_of_a_label_tree_see_the_prompt_and_their_ancestors_alone(kernel, precision)


def test_int8_sums_are_exact(kernel):
    test_kernels.test_sums_of_int8_products_are_exact(kernel)
    test_kernels.test_a_second_pass_adds_what_the_first_one_rounded_off(kernel)


def test_int4_products_of_a_group_are_exact(kernel):
    test_kernels.test_int4_products_of_a_group_are_exact_and_their_sum_nearly(kernel)


@pytest.mark.parametrize("value", [0, 15])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_int4_sums_do_not_overflow(kernel, value, sign):
    test_kernels.test_the_largest_int4_sums_do_not_overflow(kernel, value, sign, two_pass=True)


@pytest.mark.parametrize("weight", [127, -127])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_int8_sums_do_not_overflow(kernel, weight, sign):
    test_kernels.test_the_largest_sums_do_not_overflow(kernel, weight, sign, two_pass=True)


@pytest.mark.parametrize("precision", test_kernels.PRECISIONS)
def test_rows_of_zeros_and_of_denormals_give_zeros(kernel, precision):
    test_kernels.test_rows_of_zeros_and_of_denormals_give_zeros(kernel, precision)


@pytest.mark.parametrize("precision", test_kernels.PRECISIONS)
@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_numbers_that_are_none_go_nowhere(kernel, precision, number):
    test_kernels.test_numbers_that_are_none_reach_no_other_sequence_and_no_row_before_them(kernel, precision, number)


@pytest.mark.parametrize("part", ["values", "keys"])
def test_what_a_half_cannot_hold_is_bounded(kernel, part):
    test_kernels.test_what_a_half_cannot_hold_is_bounded(kernel, part)


def same_on_both(reference: ReferenceModel, program: Path) -> list[np.ndarray]:
    """States and logits by the kernel for dot products, which are those of the plain one."""
    found = []
    for processor, kernel in (PLAIN, DOTPROD):
        with remote_library(on(processor, program)):
            found.append(computed(reference, kernel))
    for these, those in zip(*found, strict=True):
        np.testing.assert_array_equal(these, those)
    return found[1]


@pytest.mark.skipif("avx2" not in KERNELS, reason="compares with AVX2")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_fp32_is_that_of_x86_to_the_last_bit(program, shape):
    reference = random_model(a_config(**shape), "fp32")
    for these, those in zip(same_on_both(reference, program), computed(reference, "avx2"), strict=True):
        np.testing.assert_array_equal(these, those)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("precision", [precision for precision in test_kernels.PRECISIONS if precision != "fp32"])
def test_int8_and_int4_of_both_kernels_are_the_same_and_those_of_avx512_to_the_last_bit(program, shape, precision):
    reference = random_model(a_config(**shape), precision)
    found = same_on_both(reference, program)
    if "avx512" in KERNELS:
        for these, those in zip(found, computed(reference, "avx512"), strict=True):
            np.testing.assert_array_equal(these, those)


def test_int8_sums_are_those_of_x86(program):
    random = np.random.default_rng(1)
    values = random.integers(-127, 128, (70, 4864)).astype(np.int8)
    inputs = random.normal(0, 1, (9, 4864)).astype(np.float32)
    expected = native(test_kernels.one_product(values), "plain").logits(inputs)
    for processor, kernel in (PLAIN, DOTPROD):
        with remote_library(on(processor, program)):
            found = native(test_kernels.one_product(values), kernel).logits(inputs)
        np.testing.assert_array_equal(found, expected)
