import numpy as np
import pytest
from sklearn.metrics import f1_score

from benchmarks.accuracy import Answer, Tally
from training.corpus import Labelled, is_fitted_on

LABELS = ("positive", "neutral", "negative")


def tally(count, seed):
    rng = np.random.default_rng(seed)
    rows = [Labelled(f"text {number}", str(rng.choice(LABELS)), "sst5") for number in range(count)]
    return Tally([Answer(row, said := str(rng.choice(LABELS)), said, float(rng.random()), False) for row in rows])


def test_macro_f1_is_that_of_scikit_learn():
    found = tally(300, 1)
    true, said = [answer.row.label for answer in found.answers], [answer.label for answer in found.answers]
    assert found.macro_f1 == pytest.approx(f1_score(true, said, average="macro"))


def test_the_calibration_error_is_the_gap_of_every_bin_weighted_by_its_rows():
    rows = [Labelled(text, "positive", "sst2") for text in map(str, range(500)) if not is_fitted_on(text)][:100]
    sure = [Answer(row, "positive", "positive", 0.95, False) for row in rows[:50]]
    wrong = [Answer(row, "negative", "negative", 0.55, False) for row in rows[50:]]
    assert Tally([*sure, *wrong]).calibration_error == pytest.approx(0.5 * 0.05 + 0.5 * 0.55)


def test_rows_that_a_temperature_is_fitted_on_do_not_judge_it():
    fitted = next(text for text in map(str, range(500)) if is_fitted_on(text))
    assert (
        Tally([Answer(Labelled(fitted, "positive", "sst2"), "negative", "negative", 0.9, False)]).calibration_error == 0
    )
