"""Labelled rows -> the calibration that says their labels best on rows it was not fitted on. Pure.

Three ways are compared with the one in use, by cross-validation: a temperature alone (Guo et al. 2017), a temperature
with the prior that the model has without any content (Zhao et al. 2021), and one with a prior fitted to the rows
(Alexandari et al. 2020). Rows are judged by the log loss: -log of the probability of the true label. Arrays are
(rows, labels) of log probabilities unless said otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from qwen_aio.evaluation.metrics import mcnemar
from qwen_aio.language import Language
from qwen_aio.safeguards import Calibration
from qwen_aio.tasks.calibration_file import MAX_SHIFT

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
CalibrationMethod = Literal["temperature", "content-free prior", "fitted prior"]

METHODS: tuple[CalibrationMethod, ...] = ("temperature", "content-free prior", "fitted prior")  # the simplest first
LANGUAGES: tuple[Language, ...] = ("zh", "en")
NUM_FOLDS = 5
SEED = 0
MIN_ROWS = 50
MAX_ROWS = 2_000
MIN_OF_LABEL = 10  # rows: with fewer, a prior would be fitted to chance
MIN_OF_LANGUAGE = 50  # rows: with fewer, a language shares the temperature of all
SURE = 2.0  # standard errors of the gain: with fewer it may be chance
CHANCE = 0.05  # a band that is better by chance as often as this is not taken
RIDGE = 1.0  # of a normal prior around "as the model says it", so that few rows move little
TEMPERATURES = (0.05, 20.0)  # beyond, the probabilities say nothing, or nothing else
LEASTS = np.arange(0, 100) / 100  # probabilities below which a decision abstains


@dataclass(frozen=True)
class Rows:
    """What the model says of labelled rows, uncalibrated."""

    labels: tuple[str, ...]
    logprobs: Floats
    truth: Ints  # (rows,), columns
    language: NDArray[np.str_]  # (rows,)

    def __len__(self) -> int:
        return len(self.truth)

    def at(self, chosen: Ints | NDArray[np.bool_]) -> Rows:
        return Rows(self.labels, self.logprobs[chosen], self.truth[chosen], self.language[chosen])

    def probabilities(self, calibration: Calibration) -> Floats:
        """As `calibration` reads them."""
        temperature = np.array([calibration.temperature.get(language, 1.0) for language in self.language.tolist()])
        shifts = np.array([calibration.shifts.get(label, 0.0) for label in self.labels])
        return _softmax(self.logprobs / temperature[:, None] + shifts)

    def count_of_labels(self) -> dict[str, int]:
        return dict(zip(self.labels, np.bincount(self.truth, minlength=len(self.labels)).tolist(), strict=True))


@dataclass(frozen=True)
class HeldOut:
    """One way to calibrate, on rows that it was not fitted on."""

    name: str  # a CalibrationMethod, or "in use"
    loss: Floats  # (rows,), log loss
    probabilities: Floats


@dataclass(frozen=True)
class Fitted:
    """What was found. `calibration` is None where nothing is surely better than what is in use."""

    candidates: tuple[HeldOut, ...]  # what is in use first
    best: HeldOut
    calibration: Calibration | None
    gain: float  # of the best one's mean log loss over that in use
    error: float  # standard error of the gain
    rows_needed: int | None  # to be sure of that gain; None: it is none

    @property
    def in_use(self) -> HeldOut:
        return self.candidates[0]


@dataclass(frozen=True)
class AbstainBand:
    """Where decisions abstain, chosen on other rows than it was counted on."""

    least: float  # probability
    num_right: int
    num_right_in_use: int
    p_value: float  # McNemar's

    @property
    def is_better(self) -> bool:
        """Surely better than the one in use."""
        return self.num_right > self.num_right_in_use and self.p_value < CHANCE


def fit(rows: Rows, in_use: Calibration, content_free: Floats) -> Fitted:
    """`content_free` (labels,): log probabilities of a text that says nothing."""
    known = HeldOut("in use", *_judged(rows, in_use))
    candidates = [known, *(_cross_validated(rows, method, content_free) for method in usable_methods(rows))]
    best = _simplest_of_the_best(candidates[1:])
    difference = known.loss - best.loss
    gain, error = float(difference.mean()), float(difference.std(ddof=1) / math.sqrt(len(rows)))
    is_sure = gain > SURE * error
    needed = math.ceil(len(rows) * (SURE * error / gain) ** 2) if gain > 0 else None
    found = fitted(rows, best.name, content_free) if is_sure else None
    return Fitted(tuple(candidates), best, found, gain, error, needed)


def usable_methods(rows: Rows) -> tuple[CalibrationMethod, ...]:
    """A prior is fitted only where every label has rows enough."""
    return METHODS if min(rows.count_of_labels().values()) >= MIN_OF_LABEL else METHODS[:-1]


def fitted(rows: Rows, method: str, content_free: Floats) -> Calibration:
    """The most probable parameters: Newton's method on a convex loss."""
    shared = _languages(rows)
    offset = -(content_free - content_free.mean()) if method == "content-free prior" else np.zeros(len(rows.labels))
    weights = _minimum(_features(rows, shared, has_shifts=method == "fitted prior"), rows.truth, offset, len(shared))
    temperature = {
        language: round(float(np.clip(1 / max(weight, 1e-9), *TEMPERATURES)), 4)
        for languages, weight in zip(shared, weights.tolist(), strict=False)
        for language in languages
    }
    shifts = offset + weights[len(shared) :] if method == "fitted prior" else offset
    shifts = np.clip(shifts - shifts.mean(), -MAX_SHIFT, MAX_SHIFT)
    named = zip(rows.labels, shifts.tolist(), strict=True)
    return Calibration(temperature, {label: round(shift, 4) for label, shift in named if method != "temperature"})


def fit_band(rows: Rows, best: HeldOut, neutral: int, *, in_use: float) -> AbstainBand:
    """The probability below which `neutral` (a column) is right most often, from held-out probabilities.

    Its gain is counted fold by fold, with the one chosen on the others.
    """
    chosen = np.zeros(len(rows), dtype=np.int64)
    for others, held in _folds(rows):
        least = _best_least(best.probabilities[others], rows.truth[others], neutral)
        chosen[held] = _decided(best.probabilities[held], neutral, least)
    known = _decided(best.probabilities, neutral, in_use)
    is_right, was_right = chosen == rows.truth, known == rows.truth
    return AbstainBand(
        least=_best_least(best.probabilities, rows.truth, neutral),
        num_right=int(is_right.sum()),
        num_right_in_use=int(was_right.sum()),
        p_value=mcnemar(int((is_right & ~was_right).sum()), int((was_right & ~is_right).sum())),
    )


# ---- candidates ----


def _cross_validated(rows: Rows, method: CalibrationMethod, content_free: Floats) -> HeldOut:
    """Every row is read by a calibration fitted without its fold."""
    loss, probabilities = np.empty(len(rows)), np.empty(rows.logprobs.shape)
    for others, held in _folds(rows):
        loss[held], probabilities[held] = _judged(rows.at(held), fitted(rows.at(others), method, content_free))
    return HeldOut(method, loss, probabilities)


def _judged(rows: Rows, calibration: Calibration) -> tuple[Floats, Floats]:
    """Log loss of each row, and its probabilities."""
    probabilities = rows.probabilities(calibration)
    return -np.log(np.maximum(probabilities[np.arange(len(rows)), rows.truth], 1e-30)), probabilities


def _simplest_of_the_best(candidates: Sequence[HeldOut]) -> HeldOut:
    """The first that is within one standard error of the least mean loss."""
    best = min(candidates, key=lambda each: float(each.loss.mean()))
    for each in candidates:
        difference = each.loss - best.loss
        if difference.mean() <= difference.std(ddof=1) / math.sqrt(len(difference)):
            return each
    return best


def _folds(rows: Rows) -> Iterator[tuple[Ints, Ints]]:
    """(other rows, rows of the fold); each label is spread over all folds."""
    order = np.random.default_rng(SEED).permutation(len(rows))
    order = order[np.argsort(rows.truth[order], kind="stable")]
    fold = np.empty(len(rows), dtype=np.int64)
    fold[order] = np.arange(len(rows)) % NUM_FOLDS
    for number in range(NUM_FOLDS):
        yield np.flatnonzero(fold != number), np.flatnonzero(fold == number)


# ---- parameters ----


def _languages(rows: Rows) -> list[tuple[Language, ...]]:
    """Languages that share a temperature: all of them, unless each has rows enough."""
    has_rows = all((rows.language == language).sum() >= MIN_OF_LANGUAGE for language in LANGUAGES)
    return [(language,) for language in LANGUAGES] if has_rows else [LANGUAGES]


def _features(rows: Rows, shared: Sequence[tuple[Language, ...]], *, has_shifts: bool) -> Floats:
    """(rows, labels, parameters): one inverse temperature for each of `shared`, and a shift for each label."""
    of_languages = [np.isin(rows.language, languages)[:, None] * rows.logprobs for languages in shared]
    features = np.stack(of_languages, axis=2)
    if not has_shifts:
        return features
    shifts = np.broadcast_to(np.eye(len(rows.labels)), (len(rows), len(rows.labels), len(rows.labels)))
    return np.concatenate([features, shifts], axis=2)


def _minimum(features: Floats, truth: Ints, offset: Floats, num_temperatures: int) -> Floats:
    """Parameters with the least log loss of softmax(features @ parameters + offset), and a ridge around 1 and 0."""
    count, _, num_parameters = features.shape
    start = np.array([1.0] * num_temperatures + [0.0] * (num_parameters - num_temperatures))
    true = features[np.arange(count), truth]

    def loss(weights: Floats) -> float:
        probabilities = _softmax(features @ weights + offset)[np.arange(count), truth]
        return float(-np.log(np.maximum(probabilities, 1e-300)).sum() + RIDGE / 2 * ((weights - start) ** 2).sum())

    weights = start
    for _ in range(100):
        probabilities = _softmax(features @ weights + offset)
        mean = np.einsum("nl,nlf->nf", probabilities, features)
        gradient = (mean - true).sum(0) + RIDGE * (weights - start)
        square = np.einsum("nl,nlf,nlg->fg", probabilities, features, features) - mean.T @ mean
        step = np.linalg.solve(square + RIDGE * np.eye(num_parameters), gradient)
        while loss(weights - step) > loss(weights) and np.abs(step).max() > 1e-9:
            step = step / 2
        weights = weights - step
        if np.abs(step).max() < 1e-8:
            break
    return weights


def _softmax(logits: Floats) -> Floats:
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    result: Floats = weights / weights.sum(-1, keepdims=True)
    return result


# ---- the band in which decisions abstain ----


def _best_least(probabilities: Floats, truth: Ints, neutral: int) -> float:
    """Of LEASTS, the lowest with the most rows right."""
    right = [(_decided(probabilities, neutral, least) == truth).sum() for least in LEASTS.tolist()]
    return float(LEASTS[int(np.argmax(right))])


def _decided(probabilities: Floats, neutral: int, least: float) -> Ints:
    """(rows,) columns."""
    return np.where(probabilities.max(1) < least, neutral, probabilities.argmax(1))
