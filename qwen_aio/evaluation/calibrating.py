"""Labelled rows put to a task without its calibrations, what is fitted to them, and how it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from qwen_aio.core import Task
from qwen_aio.errors import InvalidSettings
from qwen_aio.evaluation.fitting import (
    MAX_ROWS,
    MIN_OF_LABEL,
    MIN_ROWS,
    AbstainBand,
    Fitted,
    Floats,
    HeldOut,
    Rows,
    fit,
    fit_band,
)
from qwen_aio.evaluation.judged import Judged
from qwen_aio.evaluation.judging import Judge, Source
from qwen_aio.evaluation.metrics import calibration_error
from qwen_aio.evaluation.share import Share
from qwen_aio.language import language_of
from qwen_aio.safeguards import Calibration

CONTENT_FREE = ("N/A", "[MASK]", "……", "无")  # the first two are those of Zhao et al. 2021


@dataclass(frozen=True)
class Recalibration:
    """What a file says about the calibration of a task."""

    rows: Rows
    fitted: Fitted
    band: AbstainBand | None  # None where no band can be fitted
    calibration: Calibration | None  # to be written; None: the one in use stays


def uncalibrated(task: Task) -> Task:
    """The task as the model says it, under another name."""
    return replace(task, name=uncalibrated_name(task.name), calibration={}, rules=(), golden=())


def uncalibrated_name(task: str) -> str:
    return f"{task}-uncalibrated"


async def recalibrate(source: Source, judge: Judge, task: Task, in_use: Calibration) -> Recalibration:
    """`judge` asks the uncalibrated `task`. Raises InvalidSettings for rows that are too few."""
    judged, _ = await source.judged(judge, title="judging", most=MAX_ROWS)
    rows = _rows(judged, task)
    if len(rows) < MIN_ROWS:
        raise InvalidSettings(f"{len(rows)} labelled rows can be judged; a calibration needs {MIN_ROWS} at least")
    if sum(count >= MIN_OF_LABEL for count in rows.count_of_labels().values()) < 2:
        raise InvalidSettings(f"a calibration needs {MIN_OF_LABEL} rows of two labels at least")
    fitted = fit(rows, in_use, await _content_free(judge))
    begin = fitted.calibration or in_use
    band = _band(rows, fitted, task, in_use)
    if band and band.is_better:
        return Recalibration(rows, fitted, band, replace(begin, neutral_below=band.least))
    kept = replace(fitted.calibration, neutral_below=in_use.neutral_below) if fitted.calibration else None
    return Recalibration(rows, fitted, band, kept)


def _rows(judged: Sequence[Judged], task: Task) -> Rows:
    labels = tuple(label.name for label in task.labels)
    return Rows(
        labels=labels,
        logprobs=np.array([_logs(row.scores[label] for label in labels) for row in judged]),
        truth=np.array([labels.index(row.truth) for row in judged]),
        language=np.array([language_of(row.text) or "en" for row in judged]),
    )


def _logs(probabilities: Iterator[float]) -> Floats:
    logs: Floats = np.log(np.maximum(np.fromiter(probabilities, np.float64), 1e-30))
    return logs


async def _content_free(judge: Judge) -> Floats:
    """Mean log probabilities of the labels where there is nothing to decide about."""
    asked = (judge.asked.run(replace(judge.request, text=text)) for text in CONTENT_FREE)
    decisions = [result.decision for result in await asyncio.gather(*asked) if result.decision]
    mean: Floats = np.array([_logs(iter(decision.scores.values())) for decision in decisions]).mean(0)
    return mean


def _band(rows: Rows, fitted: Fitted, task: Task, in_use: Calibration) -> AbstainBand | None:
    """None for a task that does not abstain, and where the neutral label is hardly ever true."""
    if task.neutral is None or rows.count_of_labels()[task.neutral] < MIN_OF_LABEL:
        return None
    least = task.neutral_below if in_use.neutral_below is None else in_use.neutral_below
    read = fitted.best if fitted.calibration else fitted.in_use
    return fit_band(rows, read, rows.labels.index(task.neutral), in_use=least)


# ---- as text ----


def calibration_lines(found: Recalibration, task: Task) -> Iterator[str]:
    """What was tried, and what came of it."""
    yield f"{len(found.rows)} rows; rows of each label: " + ", ".join(
        f"{label} {count}" for label, count in found.rows.count_of_labels().items()
    )
    yield f"{'':20s} log loss  right  calibration error"
    for candidate in found.fitted.candidates:
        yield _line(candidate, found.rows, is_taken=bool(found.fitted.calibration) and candidate is found.fitted.best)
    if few := [label for label, count in found.rows.count_of_labels().items() if count < MIN_OF_LABEL]:
        yield f"no prior is fitted: {', '.join(few)} would need {MIN_OF_LABEL} rows"
    yield from _gain_lines(found.fitted, len(found.rows))
    yield from _band_lines(found, task)


def _line(candidate: HeldOut, rows: Rows, *, is_taken: bool) -> str:
    is_right = candidate.probabilities.argmax(1) == rows.truth
    error = calibration_error(candidate.probabilities.max(1), is_right)
    taken = "  <- taken" if is_taken else ""
    return f"{candidate.name:20s} {candidate.loss.mean():8.4f}  {is_right.mean():5.3f}  {error:.3f}{taken}"


def _gain_lines(fitted: Fitted, num_rows: int) -> Iterator[str]:
    gain = f"log loss of {fitted.best.name} lower by {fitted.gain:.4f} ± {fitted.error:.4f} a row"
    if fitted.calibration:
        yield gain
    elif fitted.rows_needed is None:
        yield "no calibration says these labels better than the one in use: it stays"
    else:
        yield f"{gain}: too little to be sure with {num_rows} rows; about {fitted.rows_needed} would do if it is real"


def _band_lines(found: Recalibration, task: Task) -> Iterator[str]:
    if task.neutral is None:
        return
    if found.band is None:
        yield f"where it abstains stays: {task.neutral} would need {MIN_OF_LABEL} rows"
        return
    band, total = found.band, len(found.rows)
    verdict = "taken" if band.is_better else "not surely better: it stays"
    yield (
        f"{task.neutral} below {band.least:g}: right {Share(band.num_right, total)},"
        f" with the one in use {Share(band.num_right_in_use, total)}; McNemar's p = {band.p_value:.3g}, {verdict}"
    )
