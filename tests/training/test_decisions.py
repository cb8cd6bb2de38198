import numpy as np
import pytest

from training import decisions
from training.corpus import is_held_out


def sure(rows):
    """A teacher who always says: probably negative."""
    return np.tile(np.array([0.1, 0.0, 0.9], dtype=np.float32), (len(rows), 1))


def test_a_row_is_taken_for_a_mean_of_its_label_and_the_teachers_opinion(data, recipe):
    judged = {row.text: soft for row, soft in decisions._judged(data, recipe, sure)}
    soft = judged["太差了"]  # negative, and the teacher agrees
    assert soft["negative"] == pytest.approx(0.4 + 0.6 * 0.9, abs=0.02)
    assert sum(soft.values()) == pytest.approx(1)
    torn = judged["喜欢"]  # positive, and the teacher does not agree: neutral gets a part of it
    assert torn["positive"] == pytest.approx((0.4 + 0.06) * (1 - torn["neutral"]))
    assert torn["neutral"] == pytest.approx(0.15 * (1 - 0.08))


def test_without_an_opinion_the_label_stands(data, recipe):
    nothing = decisions._judged(data, recipe, lambda rows: np.full((len(rows), 3), np.nan))
    assert all(soft[row.label] == 1 for row, soft in nothing)


def test_two_labels_are_asked_of_rows_that_have_one_of_them(data, encoder, recipe):
    rows = list(decisions.reworded_rows(data, encoder, recipe, sure, "sentiment-two_labels"))
    assert rows
    for row, _ in rows:
        assert len(row.soft) == 2
        assert sum(row.soft) == pytest.approx(1)


def test_safety_rows_are_turns_as_the_product_joins_them_and_ordinary_texts_are_harmless(
    data, encoder, recipe, tokenizer
):
    rows = list(decisions.safety_rows(data, encoder, recipe))
    assert {source for _, source in rows} == {"safety", "ordinary"}
    labels = [label.name for label in encoder.tasks["safety"].labels]
    assert all(labels[int(np.argmax(row.soft))] == "ok" for row, source in rows if source == "ordinary")
    assert {labels[int(np.argmax(row.soft))] for row, _ in rows} >= {"ok", "crisis"}
    assert not any(is_held_out(tokenizer.decode(row.ids)) for row, _ in rows)
