"""The kernel for AVX-512, emulated by SIMDe: machines that test this project often lack the instructions."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from qwen_aio.engine.native import bindings
from tests.campaign import only_in_campaign
from tests.e2e.processes import ROOT
from tests.engine.native import test_kernels
from tests.engine.native.reference import ReferenceModel
from tests.engine.native.running import KERNELS, a_config, native, random_model
from tests.engine.native.test_kernels import states_in_company

pytestmark = [
    only_in_campaign,
    pytest.mark.skipif(not Path("/usr/include/simde").exists(), reason="needs SIMDe: scripts/install-simde"),
    pytest.mark.skipif("avx2" not in KERNELS, reason="emulates in AVX2"),
]

FILES = [
    "native/interface.cpp",
    "native/model.cpp",
    "native/team.cpp",
    "native/kernel_avx512.cpp",
    "tests/engine/native/emulated/choose.cpp",
]
# Without vectors of the compiler's own, on which GCC 12 breaks off with an internal error.
FLAGS = "-std=c++17 -O1 -march=x86-64-v3 -ffp-contract=off -fno-math-errno -Wno-psabi -DSIMDE_NO_VECTOR"
SHAPES = [
    {},
    {"num_heads": 14, "head_dim": 64, "has_qkv_bias": False, "has_qk_norm": True},
    {"num_heads": 3, "num_kv_heads": 1, "head_dim": 16, "hidden_size": 96, "intermediate_size": 80},
]
PLAN = [[(0, 20), (1, 3)], [(1, 37)], [(0, 30), (1, 1)]]


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library of that kernel alone."""
    path = tmp_path_factory.mktemp("emulated") / "libqwen_aio.so"
    folders = ["-Itests/engine/native/emulated", "-Inative"]
    command = ["g++", *FLAGS.split(), *folders, "-fPIC", "-shared", "-pthread", *FILES, "-o", str(path)]
    subprocess.run(command, cwd=ROOT, check=True)
    return path


@contextmanager
def loaded(path: Path) -> Iterator[None]:
    """The library at `path` computes; models made inside must be gone at the end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bindings, "PATH", path)
        bindings.shared_library.cache_clear()
        yield
    bindings.shared_library.cache_clear()


def computed(reference: ReferenceModel, kernel: str) -> list[NDArray[np.float32]]:
    """States and logits of two sequences."""
    model = native(reference, kernel, threads=2)
    states = states_in_company(model, [list(range(50)), list(range(40, 81))], PLAN, seed=4)
    return [*states, *map(model.logits, states)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_fp32_is_that_of_avx2_to_the_last_bit(emulated, shape):
    reference = random_model(a_config(**shape), "fp32")
    expected = computed(reference, "avx2")
    with loaded(emulated):
        found = computed(reference, "avx512")
    for these, those in zip(found, expected, strict=True):
        np.testing.assert_array_equal(these, those)


def test_any_model_is_close_to_numpy_and_the_same_in_any_company(emulated):
    with loaded(emulated):
        test_kernels.test_any_model_in_any_company_and_cut_is_close_to_numpy_and_the_same_to_the_last_bit("avx512")


def test_sums_are_exact(emulated):
    with loaded(emulated):
        test_kernels.test_sums_of_int8_products_are_exact("avx512")
        test_kernels.test_int4_products_of_a_group_are_exact_and_their_sum_nearly("avx512")
        test_kernels.test_a_second_pass_adds_what_the_first_one_rounded_off("avx512")


@pytest.mark.parametrize("weight", [127, -127])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_int8_sums_do_not_overflow(emulated, weight, sign):
    with loaded(emulated):
        test_kernels.test_the_largest_sums_do_not_overflow("avx512", weight, sign, two_pass=True)


@pytest.mark.parametrize("value", [0, 15])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_int4_sums_do_not_overflow(emulated, value, sign):
    with loaded(emulated):
        test_kernels.test_the_largest_int4_sums_do_not_overflow("avx512", value, sign, two_pass=True)


@pytest.mark.parametrize("precision", test_kernels.PRECISIONS)
@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_numbers_that_are_none_go_nowhere(emulated, precision, number):
    with loaded(emulated):
        test_kernels.test_numbers_that_are_none_reach_no_other_sequence_and_no_row_before_them(
            "avx512", precision, number
        )


@pytest.mark.parametrize("part", ["values", "keys"])
def test_what_a_half_cannot_hold_is_bounded(emulated, part):
    with loaded(emulated):
        test_kernels.test_what_a_half_cannot_hold_is_bounded("avx512", part)
