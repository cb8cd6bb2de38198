"""The int8 product that golden records are made with, against fbgemm's own where that is exact."""

import torch

from qwen_aio.engine.model.linear import NARROW_LEVELS, WIDE_LEVELS, Int8Linear
from qwen_aio.engine.weights.model_weights import Int8Matrix
from tests.engine.running import dense
from training.golden import exact_product


def product(matrix: Int8Matrix, x: torch.Tensor, levels: int) -> torch.Tensor:
    return exact_product(x, 1 / levels, levels + 1, Int8Linear(matrix)._packed)


def test_the_exact_product_is_fbgemms_in_levels_that_every_processor_sums_exactly():
    torch.manual_seed(0)
    matrix, x = Int8Matrix.of(torch.randn(33, 64).numpy()), torch.rand(5, 64) * 2 - 1
    found = product(matrix, x, NARROW_LEVELS)
    assert torch.allclose(found, Int8Linear(matrix, levels=NARROW_LEVELS).product(x), rtol=1e-6, atol=1e-6)


def test_the_largest_sums_do_not_saturate():
    matrix = Int8Matrix.of(torch.ones(2, 1024).numpy())
    x = torch.stack((torch.ones(1024), -torch.ones(1024)))
    assert torch.allclose(product(matrix, x, WIDE_LEVELS), x @ dense(matrix).t(), rtol=1e-6)
