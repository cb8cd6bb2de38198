"""int4 weights: how close they are, and what cannot be lost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from qwen_aio.engine.native.bindings import GROUP
from qwen_aio.engine.native.int4_matrix import INT4_LEVELS, Int4Matrix
from qwen_aio.engine.native.panels import factor_panels, int4_panels


def relative_error(weight: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    return float(np.sqrt(((weight - found).astype(np.float64) ** 2).sum() / (weight.astype(np.float64) ** 2).sum()))


def in_equal_steps(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """The usual int4: a scale for each 32 weights, whose largest is at -8."""
    groups = weight.reshape(len(weight), -1, GROUP)
    largest = np.take_along_axis(groups, np.abs(groups).argmax(axis=2)[:, :, None], axis=2)
    steps = largest / -8
    return (np.rint(groups / steps).clip(-8, 7) * steps).reshape(weight.shape).astype(np.float32)


@pytest.mark.parametrize(("degrees", "most"), [(None, 0.076), (5, 0.085), (3, 0.095)])
def test_the_error_is_less_than_in_equal_steps(degrees, most):
    random = np.random.default_rng(1)
    drawn = random.normal(size=(300, 512)) if degrees is None else random.standard_t(degrees, (300, 512))
    weight = drawn.astype(np.float32)
    error = relative_error(weight, Int4Matrix.of(weight).dense())
    assert error < most
    assert error < 0.9 * relative_error(weight, in_equal_steps(weight))


@given(st.integers(1, 300), st.integers(1, 5), st.integers(-30, 30), st.integers(0, 99))
def test_any_matrix_has_its_shape_and_a_bounded_error(num_rows, sixteens, exponent, seed):
    random = np.random.default_rng(seed)
    weight = (random.normal(size=(num_rows, 16 * sixteens)) * 10.0**exponent).astype(np.float32)
    matrix = Int4Matrix.of(weight)
    assert matrix.values.shape == weight.shape
    assert matrix.factors.shape == (num_rows, -(-weight.shape[1] // GROUP))
    assert matrix.scales.shape == (num_rows,)
    assert relative_error(weight, matrix.dense()) < 0.12


def test_a_scale_of_a_row_changes_nothing_else():
    weight = np.random.default_rng(1).normal(size=(8, 96)).astype(np.float32)
    matrix, scaled = Int4Matrix.of(weight), Int4Matrix.of(weight * np.float32(2**-20))
    np.testing.assert_array_equal(matrix.values, scaled.values)
    np.testing.assert_array_equal(matrix.factors, scaled.factors)
    np.testing.assert_array_equal(matrix.scales * np.float32(2**-20), scaled.scales)


def test_zeros_and_the_smallest_numbers_stay_finite():
    weight = np.zeros((4, 64), np.float32)
    weight[1, 3], weight[2] = 1, 1e-40
    found = Int4Matrix.of(weight).dense()
    assert not found[[0, 3]].any()
    assert found[1, 3] == pytest.approx(1, rel=1e-6)
    assert np.count_nonzero(found[1]) == 1
    assert np.abs(found[2]).max() < 1e-36


def test_a_group_far_below_the_largest_is_not_forgotten_where_it_counts():
    """Outliers in one group of a row take levels from the factors of the others."""
    weight = np.random.default_rng(1).normal(size=(64, 256)).astype(np.float32)
    weight[:, 7] *= 30
    found = Int4Matrix.of(weight).dense()
    assert relative_error(weight[:, GROUP:], found[:, GROUP:]) < 0.13


@pytest.mark.parametrize("together", [2, 4])
def test_panels_hold_each_level_in_its_place(together):
    random = np.random.default_rng(1)
    values = random.integers(0, 16, (40, 48)).astype(np.uint8)
    panels = int4_panels(values, together=together)
    assert panels.shape == (2, 2, 4, 32, 4)
    assert panels.flags.c_contiguous
    order = {4: (0, 1, 2, 3), 2: (0, 2, 1, 3)}[together]
    for column, number in [(0, 0), (5, 6), (31, 31), (32, 13), (39, 47), (17, 42)]:
        group, within = divmod(number, GROUP)
        step, place = divmod(within, 8)
        half, nibble = divmod(place, 4)
        byte = panels[column // 32, group, step, column % 32, order.index(nibble)]
        assert byte >> 4 * half & 15 == values[column, number]


def test_factors_of_columns_after_the_last_are_zeros():
    factors = np.full((40, 3), 5, np.int8)
    panels = factor_panels(factors)
    assert panels.shape == (2, 3, 32)
    assert panels.dtype == np.int8
    assert (panels[1, :, :8] == 5).all()
    assert not panels[1, :, 8:].any()


def test_levels_rise_and_hold_zero():
    assert (np.diff(INT4_LEVELS.astype(int)) > 0).all()
    assert 0 in INT4_LEVELS
