"""The prompt is chosen by measured gain, judged on rows that did not choose it, and naive Bayes is a fair rival."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.naive_bayes import MultinomialNB

from qwen_aio.bulk.table import open_table
from qwen_aio.errors import InvalidSettings
from qwen_aio.evaluation.drafting import NO_EXAMPLES, choice_lines, choose, drafts, golden_texts, material
from qwen_aio.evaluation.naive_bayes import NaiveBayes, units
from tests.evaluation.rows import judged


def table_of(path, rows):
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    return open_table(path)


@pytest.fixture
def found(tmp_path):
    rows = [(f"请马上处理第{n}件" if n % 2 else f"有空再看第{n}件", "紧急" if n % 2 else "普通") for n in range(100)]
    return material(table_of(tmp_path / "rows.csv", rows), "text", "label")


def said(found, is_right):
    """What a prompt says that is right where `is_right` says so."""
    names = found.names
    others = dict(zip(names.values(), reversed(list(names.values())), strict=True))
    for at, row in enumerate(found.judged_on):
        truth = names[row.label]
        yield judged(row.number, truth, truth if is_right(at) else others[truth], 0.9 - at / 1000, text=row.text)


def test_examples_come_from_rows_that_are_not_judged(found):
    assert {row.number for row in found.pool}.isdisjoint(row.number for row in found.judged_on)
    assert len(found.pool) == 30 and len(found.judged_on) == 70
    pool = {(row.text, row.label) for row in found.pool}
    made = drafts("urgency", found)
    assert [len(draft.examples) for draft in made.values()] == [0, 2, 2, 4, 4, 8, 8]
    assert all((each.text, each.label) in pool for draft in made.values() for each in draft.examples)
    assert {draft.language for draft in made.values()} == {"zh"}


def test_the_best_prompt_is_taken_and_of_equals_the_one_with_fewer_examples(found):
    right = {NO_EXAMPLES: lambda at: at % 3 > 0, "1": lambda at: at % 4 > 0, "2": lambda at: at % 4 > 0}
    choice = choose(found, {prompt: list(said(found, is_right)) for prompt, is_right in right.items()})
    assert choice.best == "1"
    assert sum(choice.is_right) == sum(at % 4 > 0 for at in range(70))
    assert "<- taken" in "\n".join(choice_lines(found, choice))


def test_a_choice_that_is_chance_does_not_flatter_itself(found):
    rng = np.random.default_rng(0)
    coins = {str(number): rng.random(70) < 0.5 for number in range(40)}
    choice = choose(found, {name: list(said(found, coin.__getitem__)) for name, coin in coins.items()})
    assert sum(choice.right[choice.best]) >= 45  # the luckiest of forty coins
    assert sum(choice.is_right) <= 42


def test_it_says_when_naive_bayes_is_better(found):
    choice = choose(found, {NO_EXAMPLES: list(said(found, lambda at: at % 2 > 0))})
    assert sum(choice.bayes_is_right) == 70  # one word tells the label
    assert "naive Bayes is surely better on these rows: use it, or a larger model" in list(choice_lines(found, choice))


def test_a_row_that_was_refused_is_not_right(found):
    choice = choose(found, {NO_EXAMPLES: list(said(found, lambda _: True))[:-1]})
    assert sum(choice.is_right) == 69


def test_golden_cases_are_right_and_of_every_label(found):
    texts = golden_texts(found, list(said(found, lambda at: at > 5)))
    by_text = {row.text: row.label for row in found.judged_on}
    assert len(texts) == 6 and [by_text[text] for text in texts].count("紧急") == 3
    assert not set(texts) & {row.text for row in found.judged_on[:6]}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", "x")] * 30, "the label column has 1 values; a decision has 2 to 20 labels"),
        ([(f"a{n}", f"x{n}") for n in range(30)], "the label column has 30 values"),
        ([("a", "x")] * 30 + [("b", "y")] * 9, "a draft needs 10 rows of each label; 'y' has 9"),
        ([("a", "x")] * 30 + [("b", "y" * 41)] * 30, "is longer than 40 characters"),
        ([("a", "X")] * 30 + [("b", "x")] * 30, "differ in small and capital letters alone"),
        ([("", "x")] * 30, "the label column has 0 values"),
    ],
)
def test_rows_that_make_no_task_are_refused(tmp_path, rows, message):
    with pytest.raises(InvalidSettings, match=message):
        material(table_of(tmp_path / "rows.csv", rows), "text", "label")


# ---- naive Bayes ----


@given(st.lists(st.tuples(st.text("好坏 ab", max_size=8), st.sampled_from("xyz")), min_size=3, max_size=30))
def test_naive_bayes_is_that_of_scikit_learn(rows):
    texts, labels = [text for text, _ in rows], [label for _, label in rows]
    if not any(units(text) for text in texts):
        return
    counter = CountVectorizer(analyzer=units)
    theirs = MultinomialNB(alpha=1.0).fit(counter.fit_transform(texts), labels)
    ours = NaiveBayes(texts, labels)
    for text in [*texts, "好好 a", ""]:
        logs = dict(zip(theirs.classes_, theirs.predict_joint_log_proba(counter.transform([text]))[0], strict=True))
        assert logs[ours.label(text)] == pytest.approx(max(logs.values()))
