"""Calibrations are fitted to rows that were drawn from known ones, and refused where there is nothing to find."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given
from hypothesis import strategies as st

from qwen_aio.evaluation.fitting import METHODS, Rows, fit, fit_band, fitted, usable_methods
from qwen_aio.safeguards import Calibration

LABELS = ("positive", "neutral", "negative")
NOTHING = np.log([1 / 3, 1 / 3, 1 / 3])
AS_IT_IS = Calibration({})


def drawn(count, *, temperature=1.0, shifts=(0, 0, 0), languages=("zh", "en"), seed=0) -> Rows:
    """Rows whose labels follow softmax(log p / temperature + shifts)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (count, 3))
    logprobs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    true = logprobs / temperature + np.array(shifts)
    probabilities = np.exp(true) / np.exp(true).sum(1, keepdims=True)
    truth = np.array([rng.choice(3, p=p) for p in probabilities])
    return Rows(LABELS, logprobs, truth, rng.choice(languages, count))


def test_an_overconfident_model_gets_its_temperature():
    found = fit(drawn(2000, temperature=2.5), AS_IT_IS, NOTHING)
    assert found.best.name == "temperature"
    assert found.calibration.shifts == {}
    assert found.calibration.temperature == pytest.approx({"zh": 2.5, "en": 2.5}, rel=0.15)
    assert found.best.loss.mean() < found.in_use.loss.mean()


def test_a_prior_is_fitted_where_the_model_leans_to_a_label():
    found = fit(drawn(2000, temperature=1.5, shifts=(2, 0, -2)), AS_IT_IS, NOTHING)
    assert found.best.name == "fitted prior"
    shifts = found.calibration.shifts
    assert [shifts[label] for label in LABELS] == pytest.approx([2, 0, -2], abs=0.4)
    assert sum(shifts.values()) == pytest.approx(0, abs=1e-3)


def test_a_content_free_prior_that_is_the_leaning_is_taken_instead():
    found = fit(drawn(400, shifts=(2, 0, -2)), AS_IT_IS, np.array([-2.5, -0.5, 1.5]) - 2)
    assert found.best.name == "content-free prior"
    assert found.calibration.shifts == pytest.approx({"positive": 2, "neutral": 0, "negative": -2})


def test_a_calibration_that_is_right_already_stays():
    rows = drawn(2000, temperature=2.0)
    found = fit(rows, Calibration({"zh": 2.0, "en": 2.0}), NOTHING)
    assert found.calibration is None
    assert found.rows_needed is None or found.rows_needed > len(rows)


def test_few_rows_tell_how_many_would_do():
    found = fit(drawn(60, temperature=1.8, seed=2), AS_IT_IS, NOTHING)
    assert found.calibration is None
    assert found.gain > 0 and 60 < found.rows_needed < 1000
    assert fit(drawn(1000, temperature=1.8, seed=2), AS_IT_IS, NOTHING).calibration is not None


def test_a_prior_needs_rows_of_every_label():
    rows = drawn(200)
    assert usable_methods(rows) == METHODS
    assert usable_methods(rows.at(rows.truth != 1)) == METHODS[:-1]


def test_languages_with_few_rows_share_a_temperature():
    rows = drawn(500, temperature=2.0)
    few = np.flatnonzero(rows.language == "en")[:20]
    mixed = rows.at(np.concatenate([np.flatnonzero(rows.language == "zh"), few]))
    temperature = fitted(mixed, "temperature", NOTHING).temperature
    assert temperature["zh"] == temperature["en"]


@pytest.mark.parametrize("seed", range(3))
def test_the_minimum_is_that_of_scipy(seed):
    rows = drawn(300, temperature=1.7, shifts=(1, 0, -1), languages=("zh",), seed=seed)

    def loss(weights):
        logits = rows.logprobs * weights[0] + weights[1:]
        logs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        return -logs[np.arange(len(rows)), rows.truth].sum() + ((weights - [1, 0, 0, 0]) ** 2).sum() / 2

    best = scipy.optimize.minimize(loss, [1, 0, 0, 0], tol=1e-10).x
    found = fitted(rows, "fitted prior", NOTHING)
    assert found.temperature["zh"] == pytest.approx(1 / best[0], rel=1e-3)
    assert list(found.shifts.values()) == pytest.approx(list(best[1:] - best[1:].mean()), abs=2e-3)


@given(
    logprobs=st.lists(st.tuples(*[st.floats(-60, 0)] * 3), min_size=50, max_size=60),
    label=st.integers(0, 2),
    method=st.sampled_from(METHODS),
)
def test_any_rows_give_numbers_that_can_be_written(logprobs, label, method):
    truth = np.array([(label + (row % 5 == 0)) % 3 for row in range(len(logprobs))])
    rows = Rows(LABELS, np.array(logprobs), truth, np.array(["zh"] * len(truth)))
    found = fitted(rows, method, NOTHING)
    assert all(0.05 <= each <= 20 for each in found.temperature.values())
    assert np.isfinite(list(found.shifts.values())).all()
    assert np.isfinite(rows.probabilities(found)).all()


def test_rows_are_read_as_a_decision_reads_them():
    rows = drawn(20)
    calibration = Calibration({"zh": 1.7, "en": 0.6}, {"neutral": -0.5})
    for row, read in enumerate(rows.probabilities(calibration)):
        logprobs = dict(zip(LABELS, rows.logprobs[row], strict=True))
        assert calibration.read(logprobs, rows.language[row]) == pytest.approx(dict(zip(LABELS, read, strict=True)))


# ---- the band ----


def test_a_band_is_found_where_unsure_rows_are_neutral():
    rng = np.random.default_rng(0)
    rows = drawn(1000)
    best = rows.probabilities(AS_IT_IS)
    is_unsure = best.max(1) < 0.7
    truth = np.where(is_unsure, 1, best.argmax(1))
    noisy = Rows(LABELS, rows.logprobs, np.where(rng.random(1000) < 0.05, 0, truth), rows.language)
    in_use = fit(noisy, AS_IT_IS, NOTHING).in_use
    band = fit_band(noisy, in_use, 1, in_use=0.4)
    assert band.least == pytest.approx(0.7, abs=0.03)
    assert band.is_better and band.num_right > band.num_right_in_use


def test_a_band_that_changes_nothing_is_not_better():
    rows = drawn(1000)
    band = fit_band(rows, fit(rows, AS_IT_IS, NOTHING).in_use, 1, in_use=0.4)
    assert not band.is_better
