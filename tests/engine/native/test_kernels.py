"""The C++ forward pass beside the plain one in numpy, and beside itself in other company."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from qwen_aio.engine.config import ModelConfig
from qwen_aio.engine.native.int4_matrix import INT4_LEVELS
from qwen_aio.engine.native.model import NativeQwen
from qwen_aio.engine.scheduling.label_tree import LabelTree
from tests.campaign import CAMPAIGN, in_campaign
from tests.engine.native.reference import ReferenceMatrix, ReferenceModel, input_levels, takes_two_passes
from tests.engine.native.running import (
    KERNELS,
    PRECISIONS,
    a_config,
    a_sequence,
    native,
    poisoned_pool,
    random_model,
    states_alone,
)

EXAMPLES = 400 if CAMPAIGN else 25
THREADS = (1, 2, 3)

kernels = pytest.mark.parametrize("kernel", KERNELS)
precisions = pytest.mark.parametrize("precision", PRECISIONS)


@st.composite
def configs(draw: st.DrawFn) -> ModelConfig:
    kv_heads = draw(st.integers(1, 2))
    return a_config(
        vocab_size=draw(st.integers(1, 100)),
        hidden_size=32 * draw(st.integers(1, 5)),
        intermediate_size=16 * draw(st.integers(1, 9)),
        num_layers=draw(st.integers(1, 2)),
        num_heads=kv_heads * draw(st.sampled_from((1, 2, 3, 6, 7))),
        num_kv_heads=kv_heads,
        head_dim=draw(st.sampled_from((16, 32, 64, 128))),
        has_qkv_bias=draw(st.booleans()),
        has_qk_norm=draw(st.booleans()),
        tied=draw(st.booleans()),
    )


@st.composite
def texts(draw: st.DrawFn, config: ModelConfig) -> list[list[int]]:
    """Sequences of tokens."""
    lengths = draw(st.lists(st.integers(1, 70), min_size=1, max_size=4))
    random = np.random.default_rng(draw(st.integers(0, 99)))
    return [random.integers(0, config.vocab_size, length).tolist() for length in lengths]


@st.composite
def steps(draw: st.DrawFn, sequences: list[list[int]]) -> list[list[tuple[int, int]]]:
    """Which sequence computes how many rows in each step."""
    left = [len(ids) for ids in sequences]
    result = []
    while any(left):
        step = []
        for number in draw(st.permutations([number for number, rows in enumerate(left) if rows])):
            if count := draw(st.integers(0 if step else 1, left[number])):
                step.append((number, count))
                left[number] -= count
        result.append(step)
    return result


def scattered(sequences: list[list[int]], seed: int) -> tuple[list[NDArray[np.int32]], int]:
    """Slots for each sequence, in stretches of random lengths all over a pool; the size of the pool."""
    random = np.random.default_rng(seed)
    num_slots = sum(map(len, sequences)) + 40
    cuts = np.sort(random.choice(num_slots, random.integers(0, 12), replace=False))
    pieces = np.split(np.arange(num_slots, dtype=np.int32), cuts)
    random.shuffle(pieces)
    slots = np.concatenate(pieces)
    return np.split(slots, np.cumsum([len(ids) for ids in sequences]))[:-1], num_slots


def states_in_company(
    model: NativeQwen, sequences: list[list[int]], plan: list[list[tuple[int, int]]], *, seed: int
) -> list[NDArray[np.float32]]:
    slots, num_slots = scattered(sequences, seed)
    pool = poisoned_pool(model, num_slots)
    running = [a_sequence(ids, of) for ids, of in zip(sequences, slots, strict=True)]
    states: list[list[NDArray[np.float32]]] = [[] for _ in sequences]
    for step in plan:
        found = model.forward([running[number].next_span(count) for number, count in step], pool)
        ends = np.cumsum([count for _, count in step])[:-1]
        for (number, _), rows in zip(step, np.split(found, ends), strict=True):
            states[number].append(rows)
    return [np.concatenate(rows) for rows in states]


def tolerance(precision: str, kernel: str) -> float:
    """Of the largest number: a rounding that falls the other way in fp32 moves an int8 input by a level."""
    if precision == "fp32":
        return 1e-5
    is_coarse = precision in ("int8", "int4") and takes_two_passes(kernel)
    return 5e-2 if is_coarse else 1e-3


def is_close(found: NDArray[np.float32], expected: NDArray[np.float64], precision: str, kernel: str) -> bool:
    return bool(np.abs(found - expected).max() <= tolerance(precision, kernel) * np.abs(expected).max())


@kernels
@settings(max_examples=EXAMPLES)
@given(st.data())
def test_any_model_in_any_company_and_cut_is_close_to_numpy_and_the_same_to_the_last_bit(kernel, data):
    config, precision = data.draw(configs()), data.draw(st.sampled_from(PRECISIONS))
    reference = random_model(config, precision)
    sequences = data.draw(texts(config))
    alone = native(reference, kernel)
    expected = [states_alone(alone, ids) for ids in sequences]
    for ids, states in zip(sequences, expected, strict=True):
        assert is_close(states, reference.states(ids, kernel), precision, kernel)

    others = native(reference, kernel, threads=data.draw(st.sampled_from(THREADS)))
    found = states_in_company(others, sequences, data.draw(steps(sequences)), seed=data.draw(st.integers(0, 99)))
    for states, same in zip(expected, found, strict=True):
        np.testing.assert_array_equal(states, same)

    rows = np.concatenate(expected)
    logits = others.logits(rows)
    assert is_close(logits, reference.logits(rows.astype(np.float64), kernel), precision, kernel)
    count = data.draw(st.integers(1, len(rows)))
    np.testing.assert_array_equal(alone.logits(rows[-count:]), logits[-count:])


@kernels
@precisions
def test_rows_of_a_label_tree_see_the_prompt_and_their_ancestors_alone(kernel, precision):
    model = native(random_model(a_config(), precision), kernel, threads=2)
    prompt, labels = [5, 6, 7, 8, 9], ((11, 12, 13), (11, 14), (15,), (11, 12, 16))
    tree = LabelTree(labels)
    sequence = a_sequence([*prompt, *tree.tokens], range(3, 3 + len(prompt) + tree.num_rows))
    sequence.tree = tree
    found = model.forward([sequence.next_span(len(sequence.ids))], poisoned_pool(model, 32))
    for row in range(tree.num_rows):
        path = [*prompt, *(tree.tokens[each] for each in reversed(tree.ancestors(row)))]
        np.testing.assert_array_equal(found[len(prompt) + row], states_alone(model, path)[-1])


@pytest.mark.parametrize("kernel", [*in_campaign(*KERNELS[:-1]), KERNELS[-1]])
@pytest.mark.parametrize("precision", ["fp32", "int8", *in_campaign("int8 in two passes", "int4")])
def test_a_context_of_4000_tokens(kernel, precision):
    config = a_config(num_layers=1, head_dim=64, num_heads=2, num_kv_heads=1)
    reference, length = random_model(config, precision), 4000
    ids = np.random.default_rng(1).integers(0, config.vocab_size, length).tolist()
    whole = states_alone(native(reference, kernel, num_positions=length), ids)
    assert is_close(whole, reference.states(ids, kernel), precision, kernel)
    in_steps = native(reference, kernel, threads=3, num_positions=length)
    plan = [[(0, 250)] for _ in range(length // 250)]
    np.testing.assert_array_equal(whole, states_in_company(in_steps, [ids], plan, seed=3)[0])


def one_product(values: NDArray[np.int8], *, two_pass: bool = False, scale: float = 1.0) -> ReferenceModel:
    """A model of no layers, whose logits are the product."""
    config = a_config(num_layers=0, hidden_size=values.shape[1], vocab_size=len(values))
    output = ReferenceMatrix(values, np.full(len(values), scale, np.float32), two_pass)
    return ReferenceModel(config, output, output, np.ones(values.shape[1], np.float32), ())


@kernels
@settings(max_examples=EXAMPLES)
@given(st.data())
def test_sums_of_int8_products_are_exact(kernel, data):
    num_inputs, num_columns = 32 * data.draw(st.integers(1, 40)), data.draw(st.integers(1, 70))
    levels = input_levels(kernel, num_inputs)
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    values = random.integers(-127, 128, (num_columns, num_inputs)).astype(np.int8)
    inputs = random.integers(-levels, levels + 1, (data.draw(st.integers(1, 40)), num_inputs))
    inputs[:, 0] = levels  # so that an input is rounded to itself
    found = native(one_product(values), kernel, threads=2).logits(inputs.astype(np.float32))
    np.testing.assert_array_equal(found, (inputs @ values.T.astype(np.int64)).astype(np.float32))


def one_int4_product(values: NDArray[np.uint8], factors: NDArray[np.int8], *, two_pass: bool = False) -> ReferenceModel:
    reference = one_product(values.astype(np.int8))
    output = ReferenceMatrix(values, np.ones(len(values), np.float32), two_pass, factors)
    return replace(reference, output=output, embedding=output)


@kernels
@settings(max_examples=EXAMPLES)
@given(st.data())
def test_int4_products_of_a_group_are_exact_and_their_sum_nearly(kernel, data):
    num_inputs, num_columns = 32 * data.draw(st.integers(1, 40)), data.draw(st.integers(1, 70))
    levels = input_levels(kernel, num_inputs, in_groups=True)
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    values = random.integers(0, 16, (num_columns, num_inputs)).astype(np.uint8)
    factors = random.integers(-127, 128, (num_columns, num_inputs // 32)).astype(np.int8)
    inputs = random.integers(-levels, levels + 1, (data.draw(st.integers(1, 40)), num_inputs))
    inputs[:, 0] = levels  # so that an input is rounded to itself
    dots = np.einsum(
        "rgi,cgi->rcg",
        inputs.reshape(len(inputs), -1, 32),
        INT4_LEVELS[values].astype(np.int64).reshape(num_columns, -1, 32),
    )
    found = native(one_int4_product(values, factors), kernel, threads=2).logits(inputs.astype(np.float32))
    # A group's product is a sum of integers, rounded to fp32 once; each addition rounds once or twice more.
    parts = dots * factors.astype(np.int64)
    allowed = (2 + parts.shape[2]) * 2.0**-23 * np.abs(parts).sum(axis=2)
    assert (np.abs(found - parts.sum(axis=2)) <= allowed).all()
    only = data.draw(st.integers(0, parts.shape[2] - 1))  # with one group alone, nothing is added
    factors[:, :only] = factors[:, only + 1 :] = 0
    factors[:, only] = np.sign(factors[:, only])
    found = native(one_int4_product(values, factors), kernel).logits(inputs.astype(np.float32))
    np.testing.assert_array_equal(found, (dots[:, :, only] * factors[:, only]).astype(np.float32))


@kernels
@pytest.mark.parametrize("value", [0, 15])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("two_pass", [False, True])
def test_the_largest_int4_sums_do_not_overflow(kernel, value, sign, two_pass):
    values, factors = np.full((40, 8960), value, np.uint8), np.full((40, 280), 127, np.int8)
    levels = input_levels(kernel, 8960, in_groups=True)
    model = native(one_int4_product(values, factors, two_pass=two_pass), kernel)
    for num_rows in (1, 2, 7, 30):
        inputs = np.full((num_rows, 8960), sign * levels, np.float32)
        expected = float(sign * levels * 8960 * 127) * float(INT4_LEVELS[value])
        np.testing.assert_allclose(model.logits(inputs), np.full((num_rows, 40), expected), rtol=1e-5)


@kernels
@pytest.mark.parametrize("num_inputs", [32, 48, 80])
@pytest.mark.parametrize("two_pass", [False, True])
def test_a_group_that_is_not_full_computes_no_more_than_it_has(kernel, num_inputs, two_pass):
    """Of a model's `down`, whose inputs are as many as its intermediate size."""
    config = a_config(num_layers=1, intermediate_size=num_inputs)
    reference = random_model(config, "int4 in two passes" if two_pass else "int4")
    model, ids = native(reference, kernel), list(range(20))
    states_alone(native(random_model(a_config(intermediate_size=400), "int4"), kernel), ids)  # leaves its numbers
    found = states_alone(model, ids)
    assert is_close(found, reference.states(ids, kernel), "int4 in two passes" if two_pass else "int4", kernel)


@kernels
@pytest.mark.parametrize("weight", [127, -127])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("two_pass", [False, True])
def test_the_largest_sums_do_not_overflow(kernel, weight, sign, two_pass):
    num_inputs = 8960
    model = native(one_product(np.full((40, num_inputs), weight, np.int8), two_pass=two_pass), kernel)
    for num_rows in (1, 2, 7, 30):
        inputs = np.full((num_rows, num_inputs), sign * input_levels(kernel, num_inputs), np.float32)
        expected = np.float32(float(inputs[0].sum(dtype=np.float64)) * weight)
        np.testing.assert_array_equal(model.logits(inputs), np.full((num_rows, 40), expected))


@pytest.mark.parametrize("kernel", list(filter(takes_two_passes, KERNELS)))
def test_a_second_pass_adds_what_the_first_one_rounded_off(kernel):
    random = np.random.default_rng(1)
    values = random.integers(-127, 128, (33, 320)).astype(np.int8)
    levels, parts = random.integers(-126, 127, (9, 320)), random.integers(-126, 127, (9, 320))
    levels[:, 0], parts[:, 0] = 127, 0
    inputs = levels + parts / 254
    found = native(one_product(values, two_pass=True), kernel).logits(inputs.astype(np.float32))
    np.testing.assert_allclose(found, inputs @ values.T.astype(np.float64), rtol=1e-6, atol=1e-2)
    values = random.integers(0, 16, (33, 320)).astype(np.uint8)
    factors = random.integers(-127, 128, (33, 10)).astype(np.int8)
    reference = one_int4_product(values, factors, two_pass=True)
    found = native(reference, kernel).logits(inputs.astype(np.float32))
    np.testing.assert_allclose(found, inputs @ reference.output.dense().T, rtol=1e-6, atol=10)


@kernels
@precisions
def test_rows_of_zeros_and_of_denormals_give_zeros(kernel, precision):
    model = native(random_model(a_config(num_layers=0), precision), kernel)
    assert not model.logits(np.zeros((3, 64), np.float32)).any()
    assert np.abs(model.logits(np.full((3, 64), 1e-40, np.float32))).max() < 1e-37


def spoiled(reference: ReferenceModel, number: float) -> ReferenceModel:
    """Token 99 of it is read as `number`."""
    embedding = reference.embedding
    if embedding.scales is None:
        values = embedding.values.copy()
        values[99, 3] = number
        return replace(reference, embedding=replace(embedding, values=values))
    scales = embedding.scales.copy()
    scales[99] = number
    return replace(reference, embedding=replace(embedding, scales=scales))


@kernels
@precisions
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_reach_no_other_sequence_and_no_row_before_them(kernel, precision, number):
    reference = spoiled(random_model(a_config(tied=False), precision), number)
    model = native(reference, kernel, threads=2)
    good, bad = list(range(40)), [*range(20), 99, *range(30)]
    plan = [[(0, 7), (1, 30)], [(1, 21), (0, 33)]]  # row 20 is in a tile with those before it
    states, spoiled_states = states_in_company(model, [good, bad], plan, seed=5)
    assert not np.isfinite(spoiled_states[20:]).all()
    np.testing.assert_array_equal(states, states_alone(model, good))
    np.testing.assert_array_equal(spoiled_states[:20], states_alone(model, bad[:20]))
    rows = np.concatenate((spoiled_states[20:23], states))
    np.testing.assert_array_equal(model.logits(rows)[3:], model.logits(states))


@kernels
@pytest.mark.parametrize("part", ["values", "keys"])
def test_what_a_half_cannot_hold_is_bounded(kernel, part):
    reference = random_model(a_config(), "int8")
    config = reference.config
    first_key, first_value = (
        config.num_heads * config.head_dim,
        (config.num_heads + config.num_kv_heads) * config.head_dim,
    )
    bias: Any = np.zeros(first_value + config.num_kv_heads * config.head_dim, np.float32)
    bias[slice(first_key, first_value) if part == "keys" else slice(first_value, None)] = 1e6
    reference = replace(reference, layers=tuple(replace(layer, qkv_bias=bias) for layer in reference.layers))
    model, ids = native(reference, kernel), list(range(30))
    found = states_alone(model, ids)
    assert np.isfinite(found).all()
    if part == "values":  # where keys are that large, a rounding decides which of them a query sees
        assert is_close(found, reference.states(ids, kernel), "int8", kernel)
    np.testing.assert_array_equal(found, states_in_company(model, [ids], [[(0, 11)], [(0, 19)]], seed=7)[0])
