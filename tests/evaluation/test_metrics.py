"""Figures of judged rows, against scikit-learn and scipy."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn import metrics as reference
from sklearn.calibration import calibration_curve

from qwen_aio.evaluation.metrics import NUM_BINS, compare_judged, mcnemar, metrics_of
from tests.evaluation.rows import LABELS, judged

ROWS = st.lists(
    st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS), st.floats(0.34, 1.0)).map(
        lambda row: judged(truth=row[0], label=row[1], probability=row[2])
    ),
    min_size=1,
    max_size=60,
)


@settings(max_examples=30)  # each resamples a thousand times
@given(rows=ROWS)
def test_figures_are_those_of_scikit_learn(rows):
    truth, decided = [row.truth for row in rows], [row.label for row in rows]
    found = metrics_of(rows, LABELS)
    assert found.accuracy.value == pytest.approx(reference.accuracy_score(truth, decided))
    assert found.macro_f1.value == pytest.approx(reference.f1_score(truth, decided, average="macro", zero_division=0))
    expected = reference.precision_recall_fscore_support(truth, decided, labels=list(LABELS), zero_division=0)
    for number, of_label in enumerate(found.of_labels):
        assert (of_label.precision, of_label.recall, of_label.f1, of_label.support) == pytest.approx(
            tuple(column[number] for column in expected)
        )
    assert np.array_equal(found.confusion, reference.confusion_matrix(truth, decided, labels=list(LABELS)))


@settings(max_examples=30)  # each resamples a thousand times
@given(rows=ROWS)
def test_the_reliability_plot_is_that_of_scikit_learn_and_the_error_follows_from_it(rows):
    right, probability = [row.is_best_right for row in rows], [row.probability for row in rows]
    on_an_edge = [p * NUM_BINS % 1 == 0 and p < 1 for p in probability]
    found = metrics_of(rows, LABELS)
    if not any(on_an_edge):
        accuracies, probabilities = calibration_curve(right, probability, n_bins=NUM_BINS)
        assert [each.accuracy for each in found.bins] == pytest.approx(list(accuracies))
        assert [each.probability for each in found.bins] == pytest.approx(list(probabilities))
    assert sum(each.count for each in found.bins) == len(rows)
    error = sum(each.count * abs(each.accuracy - each.probability) for each in found.bins) / len(rows)
    assert found.calibration_error.value == pytest.approx(error)


@settings(max_examples=30)  # each resamples a thousand times
@given(rows=ROWS)
def test_an_interval_holds_its_value_and_lies_between_0_and_1(rows):
    found = metrics_of(rows, LABELS)
    for figure in (found.accuracy, found.macro_f1):
        assert 0 <= figure.low <= figure.high <= 1
    assert found.accuracy.low <= found.accuracy.value <= found.accuracy.high


def test_the_bootstrap_comes_near_to_the_known_interval_of_a_share():
    rows = [judged(truth="positive", label="positive" if number < 800 else "negative") for number in range(1000)]
    found = metrics_of(rows, LABELS).accuracy
    spread = 1.96 * math.sqrt(0.8 * 0.2 / 1000)
    assert (found.low, found.high) == pytest.approx((0.8 - spread, 0.8 + spread), abs=0.004)


def test_few_rows_are_called_few_and_enough_rows_are_not():
    few = metrics_of([judged(label="positive" if n % 5 else "negative") for n in range(100)], LABELS)
    assert few.has_few_rows and 600 < few.rows_needed < 800
    enough = metrics_of(
        [judged(label="positive" if n % 5 else "negative") for n in range(few.rows_needed + 150)], LABELS
    )
    assert not enough.has_few_rows


def test_bands_share_out_the_rows_and_count_abstentions_as_decided():
    rows = [
        judged(probability=0.9),
        judged(probability=0.9, label="negative"),
        judged(probability=0.7),
        judged(probability=0.39, truth="neutral", label="neutral", best_label="positive", abstained=True),
    ]
    found = metrics_of(rows, LABELS)
    assert [(band.right.count, band.right.total, band.share) for band in found.bands] == [
        (1, 2, 0.5),
        (1, 1, 0.25),
        (1, 1, 0.25),
    ]
    assert (found.accuracy.value, found.abstained.value) == (0.75, 0.25)
    assert sum(each.accuracy * each.count for each in found.bins) == pytest.approx(
        2
    )  # the best label of the last is wrong


@given(first=st.integers(0, 300), second=st.integers(0, 300))
def test_mcnemar_is_the_exact_binomial_test(first, second):
    expected = binomtest(first, first + second, 0.5).pvalue if first + second else 1.0
    assert mcnemar(first, second) == pytest.approx(expected)


def test_two_ways_are_compared_over_the_rows_that_both_judged():
    first = [judged(1), judged(2), judged(3, label="negative"), judged(4)]
    second = [judged(3), judged(2, label="negative"), judged(1)]
    found = compare_judged(first, second)
    assert (found.num_rows, found.only_first, found.only_second, found.p_value) == (3, 1, 1, 1.0)
