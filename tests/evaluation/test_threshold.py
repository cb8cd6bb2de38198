"""The threshold for a target: found on one half, checked on the other, as low as it can be."""

import random

from hypothesis import given
from hypothesis import strategies as st

from qwen_aio.evaluation.threshold import coverage, find_threshold
from tests.evaluation.rows import judged

ROWS = st.lists(
    st.tuples(st.sampled_from([0.5, 0.6, 0.7, 0.8, 0.9, 0.99]), st.booleans()), min_size=2, max_size=60
).map(
    lambda drawn: [
        judged(number, label="positive" if is_right else "negative", probability=probability)
        for number, (probability, is_right) in enumerate(drawn)
    ]
)


def calibrated_rows(count):
    rng = random.Random(0)
    for number in range(count):
        probability = rng.uniform(0.5, 1)
        yield judged(number, label="positive" if rng.random() < probability else "negative", probability=probability)


@given(rows=ROWS, target=st.floats(0.05, 1.0))
def test_what_is_found_reaches_the_target_on_its_half_and_nothing_lower_does(rows, target):
    found = find_threshold(rows, target)
    if found.probability is None:
        assert not found.found_on.total and not found.decided.count and not found.holds
        return
    assert found.found_on.value >= target
    assert found.decided.total + len(rows) // 2 == len(rows)
    assert found.holds == (found.checked_on.total > 0 and found.checked_on.value >= target)
    assert all(not row.is_best_right and row.probability >= found.probability for row in found.mistakes)


def test_a_calibrated_judge_gets_the_threshold_that_calibration_promises():
    found = find_threshold(list(calibrated_rows(20_000)), 0.95)
    assert 0.88 < found.probability < 0.92  # the mean of 0.9..1 is 0.95
    assert abs(found.checked_on.value - 0.95) < 0.01 and abs(found.decided.value - 0.2) < 0.05


def test_an_unreachable_target_is_none():
    found = find_threshold([judged(number, label="negative") for number in range(10)], 0.5)
    assert found.probability is None


@given(rows=ROWS)
def test_coverage_grows_to_all_rows_and_ends_with_the_accuracy(rows):
    points = coverage(rows)
    assert [share for _, share, _ in points] == sorted({share for _, share, _ in points})
    _, share, accuracy = points[-1]
    assert share == 1 and abs(accuracy - sum(row.is_best_right for row in rows) / len(rows)) < 1e-9
    assert len(points) <= 101
