"""The rows that accuracy is measured on, and what is made of eval's figures."""

from dataclasses import asdict

import pytest

from benchmarks.accuracy import macro_f1, with_pools, write_rows
from qwen_aio.bulk.table import open_table
from qwen_aio.evaluation.metrics import metrics_of
from tests.evaluation.rows import judged
from training.corpus import Labelled


def test_a_label_that_no_row_has_does_not_count_for_the_mean():
    rows = [
        judged(truth="positive"),
        judged(truth="negative", label="neutral"),
        judged(truth="negative", label="negative"),
    ]
    metrics = asdict(metrics_of(rows, ["positive", "neutral", "negative"]))
    assert macro_f1(metrics) == pytest.approx((1 + 2 / 3) / 2)


def test_sets_come_by_size_and_pools_after_them():
    sets = {"mr": [Labelled("a", "positive", "mr")], "waimai_10k": [Labelled("b", "negative", "waimai_10k")] * 2}
    found = {name: len(rows) for name, rows in with_pools(sets)}
    assert found == {"waimai_10k": 2, "mr": 1, "shop and takeaway": 2, "film": 1, "Chinese": 2, "English": 1}
    assert list(found)[:2] == ["waimai_10k", "mr"]


def test_eval_reads_the_rows_as_they_are(tmp_path):
    texts = ['a "quoted", text', "two\nlines", " 空格 "]
    write_rows([Labelled(text, "positive", "mr") for text in texts], tmp_path / "rows.csv")
    table = open_table(tmp_path / "rows.csv")
    assert [table.value(row, "text") for row in table.rows()] == texts
