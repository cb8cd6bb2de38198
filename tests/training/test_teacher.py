import numpy as np
import pytest

from training.corpus import Labelled
from training.teacher import FEWEST_ROWS, kept_opinions, opinions

LABELS = ("positive", "neutral", "negative")
GOOD = [Labelled(f"第{number}次买了真的很好用很满意", "positive", "waimai_10k") for number in range(60)]
BAD = [Labelled(f"第{number}次买了真的太差了不满意", "negative", "waimai_10k") for number in range(60)]
ENGLISH = [Labelled(f"a {word} film number {n}", label, "sst2") for n in range(30) for word, label in (
    ("lovely", "positive"), ("dreadful", "negative"))]  # fmt: skip


def test_the_letters_decide_and_a_label_that_never_occurs_has_no_probability():
    found = opinions([*GOOD, *BAD, *ENGLISH], LABELS, seed=1)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)
    assert (found[:, 1] == 0).all()
    right = [LABELS[best] == row.label for best, row in zip(found.argmax(1), [*GOOD, *BAD, *ENGLISH], strict=True)]
    assert np.mean(right) > 0.95


def test_no_row_is_judged_by_its_own_label():
    odd = Labelled("第7次买了真的很好用很满意!", "negative", "waimai_10k")
    found = opinions([*GOOD, *BAD, odd], LABELS, seed=1)
    assert LABELS[found[-1].argmax()] == "positive"


def test_too_few_rows_give_no_opinion():
    assert np.isnan(opinions(GOOD[: FEWEST_ROWS - 1], LABELS, seed=1)).all()


def test_opinions_are_made_once(tmp_path, monkeypatch):
    path = tmp_path / "opinions.npy"
    first = kept_opinions(path, [*GOOD, *BAD], LABELS, seed=1)
    monkeypatch.setattr("training.teacher.opinions", lambda *_, **__: pytest.fail("made again"))
    np.testing.assert_array_equal(kept_opinions(path, [*GOOD, *BAD], LABELS, seed=1), first)
