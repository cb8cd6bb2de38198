"""Products and lookups in int8 beside the same in fp32; tests for both where both must hold."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from qwen_aio.engine.model.linear import (
    NARROW_LEVELS,
    Fp32Linear,
    Int8Embedding,
    Int8Linear,
    Linear,
    why_no_fbgemm,
)
from qwen_aio.engine.weights.model_weights import Int8Matrix
from tests.engine.running import dense

Make = Callable[[Tensor, Tensor | None], Linear]
MAKERS: dict[str, tuple[Make, float]] = {  # and the error that is allowed, relative to the size of the product
    "fp32": (Fp32Linear, 1e-5),
    "int8, 63 levels": (lambda w, b: Int8Linear(Int8Matrix.of(w.numpy()), b, levels=NARROW_LEVELS), 0.022),
    "int8, what this machine adds up": (lambda w, b: Int8Linear(Int8Matrix.of(w.numpy()), b), 0.022),
    "int8, two passes": (lambda w, b: Int8Linear(Int8Matrix.of(w.numpy(), two_pass=True), b), 0.010),
}
pytestmark = pytest.mark.skipif(why_no_fbgemm() is not None, reason=str(why_no_fbgemm()))


@pytest.fixture(params=MAKERS.values(), ids=MAKERS.keys())
def maker(request: pytest.FixtureRequest) -> tuple[Make, float]:
    return request.param


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def relative_error(found: Tensor, exact: Tensor) -> float:
    return float((found - exact).norm() / exact.norm())


def test_the_product_is_that_of_fp32(maker: tuple[Make, float]) -> None:
    make, allowed = maker
    weight, bias, x = drawn(96, 200), drawn(96, seed=1), drawn(7, 200, seed=2)
    assert relative_error(make(weight, None)(x), functional.linear(x, weight)) < allowed
    assert relative_error(make(weight, bias)(x), functional.linear(x, weight, bias)) < allowed


def test_adding_to_the_residual_is_adding_the_product(maker: tuple[Make, float]) -> None:
    make, _ = maker
    linear, residual, x = make(drawn(96, 200), None), drawn(7, 96, seed=3), drawn(7, 200, seed=2)
    expected = residual + linear(x)
    added = linear.add_to(residual, x)
    assert added is residual
    torch.testing.assert_close(added, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("others", [1, 3, 40])
@pytest.mark.parametrize("two_pass", [False, True])
def test_a_row_is_the_same_in_any_batch(others: int, two_pass: bool) -> None:
    linear = Int8Linear(Int8Matrix.of(drawn(96, 200).numpy(), two_pass=two_pass))
    row, company = drawn(1, 200, seed=4), 1000 * drawn(others, 200, seed=5)
    assert torch.equal(linear(torch.cat((company, row)))[-1:], linear(row))


def test_rows_of_zeros_and_tiny_and_huge_numbers_are_no_special_case(maker: tuple[Make, float]) -> None:
    make, allowed = maker
    weight, row = drawn(96, 200), drawn(1, 200, seed=2)
    x = torch.cat((torch.zeros(1, 200), 1e-12 * row, 1e12 * row))
    zero, tiny, huge = make(weight, None)(x)
    exact = functional.linear(row, weight)[0]
    assert not zero.any()
    assert relative_error(tiny, 1e-12 * exact) < allowed
    assert relative_error(huge, 1e12 * exact) < allowed


def test_a_number_that_is_none_is_not_hidden(maker: tuple[Make, float]) -> None:
    make, _ = maker
    x = drawn(2, 200)
    x[0, 3] = torch.nan
    y = make(drawn(96, 200), None)(x)
    assert y[0].isnan().all() and not y[1].isnan().any()


def test_an_outlier_in_the_input_drowns_the_rest_unless_the_matrix_has_two_passes() -> None:
    weight, x = drawn(96, 200), drawn(7, 200, seed=2)
    x[:, 3] *= 100
    rest = x.clone()
    rest[:, 3] = 0  # what the outlier itself adds is exact in any case
    offset = functional.linear(x - rest, dense(Int8Matrix.of(weight.numpy())))
    exact = functional.linear(rest, weight)
    one_pass, two_passes = (Int8Linear(Int8Matrix.of(weight.numpy(), two_pass=two_pass)) for two_pass in (False, True))
    assert relative_error(one_pass(x) - offset, exact) > 0.2
    assert relative_error(two_passes(x) - offset, exact) < 0.02


def test_a_matrix_is_rounded_to_half_a_step() -> None:
    weight = drawn(96, 200)
    matrix = Int8Matrix.of(weight.numpy())
    assert ((dense(matrix) - weight).abs() <= 0.5001 * torch.from_numpy(matrix.scales).unsqueeze(1)).all()
    assert abs(matrix.values).max() == 127


def test_an_embedding_gives_the_rounded_rows() -> None:
    matrix = Int8Matrix.of(drawn(50, 64).numpy())
    ids = torch.tensor([3, 49, 3])
    assert torch.equal(Int8Embedding(matrix)(ids), dense(matrix)[ids])


def test_without_vnni_activations_have_seven_bits() -> None:
    """fbgemm's own switch makes this processor add products in 16 bits, like an older one."""
    code = "from qwen_aio.engine.model.linear import *; print(activation_levels(), why_no_fbgemm(), arithmetic('int8'), arithmetic('fp32'))"
    environment = os.environ | {"FBGEMM_ENABLE_INSTRUCTIONS": "avx2"}
    told = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert told.stdout.split() == [str(NARROW_LEVELS), "None", *f"int8 in {NARROW_LEVELS} levels".split(), "fp32"]


def test_a_torch_without_fbgemm_says_so() -> None:
    code = (
        "import torch; from qwen_aio.engine.model.linear import why_no_fbgemm;"
        "type(torch.backends.quantized).supported_engines = property(lambda _: ['qnnpack']); print(why_no_fbgemm())"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "no fbgemm" in told.stdout
