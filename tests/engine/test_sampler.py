"""The next token: filters like transformers, randomness from seed and index alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from qwen_aio.core import Sampling
from qwen_aio.engine.sampler import GREEDY_BELOW, HOTTEST, Sampler, most_likely, token_logprobs, uniform

VOCAB = 50
EVERYTHING = Sampler(range(VOCAB), vocab_size=VOCAB)
SEEN = np.array([3, 4, 3])


def some_logits(seed: int) -> NDArray[np.float32]:
    return (torch.randn(VOCAB, generator=torch.Generator().manual_seed(seed)) * 2).numpy()


def drawn(sampling: Sampling, *, sampler: Sampler = EVERYTHING, times: int = 4000) -> NDArray[np.float64]:
    """How often each token was drawn."""
    tokens = [sampler.pick(some_logits(0), sampling, seen_ids=SEEN, seed=5, index=n) for n in range(times)]
    return np.bincount(tokens, minlength=VOCAB) / times


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=1.0, top_p=1.0, top_k=0, repetition_penalty=1.0),
        Sampling(temperature=0.7, top_p=0.9, top_k=40, repetition_penalty=1.1),
        Sampling(temperature=1.5, top_p=0.5, top_k=0, repetition_penalty=1.0),
        Sampling(temperature=1.0, top_p=1.0, top_k=3, repetition_penalty=1.8),
    ],
    ids=["plain", "as in chat", "top_p", "top_k and penalty"],
)
def test_frequencies_are_the_probabilities_transformers_computes(sampling: Sampling) -> None:
    steps = [
        RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty),
        TemperatureLogitsWarper(sampling.temperature),
    ]
    steps += [TopKLogitsWarper(sampling.top_k)] if sampling.top_k else []
    steps += [TopPLogitsWarper(sampling.top_p)] if sampling.top_p < 1 else []
    scores = LogitsProcessorList(steps)(torch.tensor([[3, 4, 3]]), torch.from_numpy(some_logits(0)).unsqueeze(0))
    expected = scores.softmax(-1)[0].numpy()
    frequencies = drawn(sampling)
    assert np.abs(frequencies - expected).max() < 0.04
    assert ((frequencies > 0) <= (expected > 0)).all()  # what was filtered out never comes


def test_greedy_takes_the_best_after_the_penalty() -> None:
    logits = np.zeros(VOCAB, np.float32)
    logits[7], logits[8], logits[9] = 3.0, 2.0, -1.0
    greedy = Sampling(temperature=0, repetition_penalty=2)
    assert EVERYTHING.pick(logits, greedy, seen_ids=np.array([1]), seed=0, index=0) == 7
    assert EVERYTHING.pick(logits, greedy, seen_ids=np.array([1, 7]), seed=0, index=0) == 8


PENALTIES = st.just(0.0) | st.floats(-2, 2)
PLAIN = Sampling(temperature=0, repetition_penalty=1)


def penalized(
    logits: NDArray[np.float32], ids: Sequence[int], presence: float, frequency: float
) -> NDArray[np.float64]:
    """OpenAI's formula as it is written down: mu[j] - c[j] * frequency - (c[j] > 0) * presence."""
    counts = np.array([ids.count(token) for token in range(VOCAB)])
    return logits.astype(np.float64) - counts * frequency - (counts > 0) * presence


@given(st.integers(0, 2**32), st.lists(st.integers(0, VOCAB - 1)), st.lists(st.integers(0, VOCAB - 1)), st.data())
def test_presence_and_frequency_penalty_are_openais_formula_over_the_answer(
    seed: int, prompt: list[int], answer: list[int], data: st.DataObject
) -> None:
    presence, frequency = data.draw(PENALTIES), data.draw(PENALTIES)
    sampling = replace(PLAIN, presence_penalty=presence, frequency_penalty=frequency)
    logits, seen = some_logits(seed), np.array([*prompt, *answer], np.int64)
    expected = penalized(logits, answer, presence, frequency)
    token = EVERYTHING.pick(logits, sampling, seen_ids=seen, seed=5, index=len(answer))
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)
    assert expected[token] >= expected.max() - 1e-4


def test_without_them_the_logits_stay_as_they_are_to_the_last_bit() -> None:
    logits = some_logits(0)
    EVERYTHING.pick(logits, PLAIN, seen_ids=SEEN, seed=5, index=2)
    assert np.array_equal(logits, some_logits(0))


def test_they_come_after_the_repetition_penalty() -> None:
    logits = np.zeros(VOCAB, np.float32)
    logits[3] = 4.0  # in prompt and answer
    both = replace(PLAIN, repetition_penalty=2, presence_penalty=0.5, frequency_penalty=0.25)
    EVERYTHING.pick(logits, both, seen_ids=np.array([3, 7, 3, 3]), seed=0, index=2)
    assert logits[3] == 4 / 2 - 0.5 - 2 * 0.25
    assert logits[7] == 0


NUMBERS = st.floats() | st.sampled_from([0.0, 5e-324, 1e-46, 1e-38, 0.005, 1.0, 3.4e38, 1e308])
LOGITS = st.lists(st.floats(width=32), min_size=VOCAB, max_size=VOCAB)


@given(LOGITS, NUMBERS, NUMBERS, st.integers(), NUMBERS, NUMBERS, st.integers(-(2**70), 2**70))
@example([0.0] * VOCAB, 0.7, 1e-46, 40, 1.0, 0, 0)
@example([-math.inf] * VOCAB, 0.7, 0.9, 40, 1.1, 0, 0)
@example([math.nan] + [-math.inf] * (VOCAB - 1), 0.7, 0.9, 40, 1.1, 0, 0)
@example([1.0] * VOCAB, math.inf, 1.0, 0, 1.0, 0, 0)
@example([1.0] * VOCAB, 1.0, 1.0, 0, -1.0, 0, 0)  # a banned token that the prompt holds
def test_whatever_the_numbers_are_an_allowed_token_is_drawn(
    logits: list[float], temperature: float, top_p: float, top_k: int, penalty: float, counted: float, seed: int
) -> None:
    sampler = Sampler([2, 3, 5, 7], vocab_size=VOCAB)
    sampling = Sampling(
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        repetition_penalty=penalty,
        presence_penalty=counted,
        frequency_penalty=counted,
    )
    token = sampler.pick(np.array(logits, np.float32), sampling, seen_ids=np.array([1, 2, 3]), seed=seed, index=2)
    assert token in {2, 3, 5, 7}


@pytest.mark.parametrize(
    "narrow", [{"top_p": 1e-46}, {"top_p": 5e-324}, {"top_p": 1e-38}, {"top_k": 1}, {"temperature": 5e-324}]
)
def test_the_narrowest_filters_leave_the_best_token(narrow: dict[str, float]) -> None:
    sampling = Sampling(**({"temperature": 5.0, "top_p": 1.0, "top_k": 0, "repetition_penalty": 1.0} | narrow))
    assert drawn(sampling, times=50)[some_logits(0).argmax()] == 1


@given(st.integers(0, 2**32), st.floats(1e-3, 5), st.floats(0, 1, exclude_min=True), st.integers(0, 2 * VOCAB))
def test_what_the_filters_leave_is_a_distribution_headed_by_the_best_token(
    seed: int, temperature: float, top_p: float, top_k: int
) -> None:
    logits = some_logits(seed)
    sampling = Sampling(temperature=temperature, top_p=top_p, top_k=top_k)
    likely, ids = most_likely(logits.max() - logits, sampling)
    assert len(likely) == len(ids) >= 1
    assert ids[0] == logits.argmax()
    assert (np.diff(likely) <= 0).all()
    assert min(top_p, 1 - 1e-5) <= float(likely.sum()) <= 1 + 1e-5


@pytest.mark.parametrize("odd", [math.nan, -math.inf])
def test_the_best_number_is_taken_where_others_are_none(odd: float) -> None:
    logits = np.full(VOCAB, odd, np.float32)
    logits[7], logits[9] = 2.0, 1.0
    assert EVERYTHING.pick(logits, Sampling(temperature=0), seen_ids=SEEN, seed=5, index=0) == 7


@pytest.mark.parametrize("strange", [np.nan, np.inf])
@pytest.mark.parametrize("places", [slice(None), 4])
@pytest.mark.parametrize("temperature", [0.0, 0.7])
@pytest.mark.parametrize(("top_p", "top_k"), [(1, 0), (0.9, 0), (0.9, 5)])
def test_logits_that_are_no_numbers_give_some_allowed_token(
    strange: float, places: object, temperature: float, top_p: float, top_k: int
) -> None:
    logits = some_logits(0)
    logits[places] = strange
    sampler = Sampler([2, 3, 4], vocab_size=VOCAB)
    sampling = Sampling(temperature=temperature, top_p=top_p, top_k=top_k)
    assert sampler.pick(logits, sampling, seen_ids=SEEN, seed=5, index=0) in {2, 3, 4}


# ---- against the same, written down plainly ----

LARGE = 3000  # tokens: so many that the sampler sorts a part of them
BANNED = {0, 17, *range(2500, 2550)}
ALL_BUT_FEW = Sampler(set(range(LARGE)) - BANNED, vocab_size=LARGE)
STRANGE = st.sampled_from([math.nan, math.inf, -math.inf, -0.0, 1e-45, 3e38, -3e38])
SAMPLINGS = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 1e-4, 0.7, 1.0, 5.0, 1e38]) | st.floats(0, 10),
    top_p=st.sampled_from([1e-46, 0.5, 0.9, 0.999999, 1.0]) | st.floats(0, 1, exclude_min=True),
    top_k=st.sampled_from([0, 0, 1, 10, 11, 12, 40, 300, LARGE - 1, LARGE, 10**6]),
    repetition_penalty=st.sampled_from([1.0, 1.1, 0.5]),
    presence_penalty=st.sampled_from([0.0, 0.5]),
    frequency_penalty=st.sampled_from([0.0, -0.25]),
)


@st.composite
def large_logits(draw: st.DrawFn) -> NDArray[np.float32]:
    """From peaked to flat, in few levels or many, some of them with numbers that are none."""
    numbers = np.random.default_rng(draw(st.integers(0, 2**32))).standard_normal(LARGE)
    logits = (numbers * draw(st.sampled_from([0.0, 0.1, 3.0, 20.0]))).astype(np.float32)
    if draw(st.booleans()):
        logits = np.round(logits)
    for place, number in draw(st.dictionaries(st.integers(0, LARGE - 1), STRANGE, max_size=3)).items():
        logits[place] = number
    return logits


def all_sorted(gaps: NDArray[np.float32], sampling: Sampling) -> tuple[list[float], list[int]]:
    """Probabilities and ids of the tokens that the filters leave."""
    temperature = min(sampling.temperature, HOTTEST)
    order = [int(token) for token in np.lexsort((np.arange(len(gaps)), gaps)) if np.isfinite(gaps[token])]
    if sampling.top_k > 0:
        order = order[: sampling.top_k]
        weights = np.exp(gaps[order] / -temperature)
        likely = (weights / weights.sum()).tolist()
    else:
        weights = np.exp(gaps / -temperature)
        likely = (weights / weights.sum())[order].tolist()
    before, num_kept = 0.0, 0
    while num_kept < len(order) and (num_kept == 0 or sampling.top_p >= 1 or before < sampling.top_p):
        before += likely[num_kept]
        num_kept += 1
    return likely[:num_kept], order[:num_kept]


def plainly_picked(logits: NDArray[np.float32], sampling: Sampling, *, seen: list[int], index: int) -> int:
    """The token that Sampler.pick draws with seed 5."""
    logits, answer = logits.copy(), seen[len(seen) - index :]
    for token in set(seen):
        penalty = np.float32(sampling.repetition_penalty)
        logits[token] = logits[token] * penalty if logits[token] < 0 else logits[token] / penalty
    for token in set(answer):
        logits[token] -= sampling.presence_penalty + answer.count(token) * sampling.frequency_penalty
    logits[list(BANNED)] = -np.inf
    numbers = np.where(np.isnan(logits), -np.inf, logits)
    best = int(numbers.argmax()) if numbers.max() > -np.inf else min(set(range(LARGE)) - BANNED)
    if np.isnan(logits).any() or not np.isfinite(logits[best]) or sampling.temperature < GREEDY_BELOW:
        return best
    likely, ids = all_sorted(logits[best] - logits, sampling)
    sums = list(accumulate(likely))
    return next((token for token, upto in zip(ids, sums, strict=True) if upto > sums[-1] * uniform(5, index)), best)


@settings(deadline=None)
@given(large_logits(), SAMPLINGS, st.lists(st.integers(0, LARGE - 1), max_size=20), st.integers(0, 20))
def test_the_token_is_the_one_that_sorting_everything_gives(
    logits: NDArray[np.float32], sampling: Sampling, seen: list[int], index: int
) -> None:
    index = min(index, len(seen))
    with np.errstate(all="ignore"):
        expected = plainly_picked(logits, sampling, seen=seen, index=index)
    token = ALL_BUT_FEW.pick(logits, sampling, seen_ids=np.array(seen, np.int64), seed=5, index=index)
    assert token == expected


@settings(deadline=None)
@given(large_logits(), SAMPLINGS)
def test_the_filters_leave_what_sorting_everything_leaves(logits: NDArray[np.float32], sampling: Sampling) -> None:
    logits = np.where(np.isfinite(logits), logits, -np.inf).astype(np.float32)
    sampling = replace(sampling, temperature=max(sampling.temperature, GREEDY_BELOW))
    with np.errstate(all="ignore"):
        likely, ids = most_likely(logits.max() - logits, sampling)
        assert (likely.tolist(), ids.tolist()) == all_sorted(logits.max() - logits, sampling)


@pytest.mark.parametrize("top_k", [0, 3, 200])
def test_of_equal_logits_the_lowest_id_comes_first(top_k: int) -> None:
    gaps = np.ones(LARGE, np.float32)
    gaps[[9, 2000]] = 0
    _, ids = most_likely(gaps, Sampling(temperature=1, top_p=1, top_k=top_k))
    assert ids[:4].tolist() == [9, 2000, 0, 1][: top_k or 4]
    assert [*ALL_BUT_FEW.ranked(-gaps, count=4, token=9)] == [9, 2000, 1, 2]


@given(LOGITS, st.lists(st.integers(0, VOCAB - 1)))
def test_log_probabilities_are_torchs_for_any_logits(logits: list[float], tokens: list[int]) -> None:
    numbers = torch.tensor(logits)
    expected = numbers[tokens] - numbers.logsumexp(0)
    found = token_logprobs(numbers.numpy(), tokens)
    np.testing.assert_allclose([found[token] for token in tokens], expected, rtol=1e-5, atol=1e-5)


# ---- chance ----


def test_chance_depends_on_seed_and_place_alone() -> None:
    assert uniform(1, 2) == uniform(1, 2)
    numbers = [uniform(seed, index) for seed in range(20) for index in range(20)]
    assert len(set(numbers)) == len(numbers)
    assert all(0 <= number < 1 for number in numbers)
    assert 0.4 < sum(numbers) / len(numbers) < 0.6
