"""All that is found out about one file, and its two faces besides the page: lines for people, JSON for programs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from qwen_aio.evaluation.judged import Judged
from qwen_aio.evaluation.metrics import Difference, Metrics
from qwen_aio.evaluation.share import Share
from qwen_aio.evaluation.threshold import NUM_MISTAKES, Threshold

NUM_REASONS = 5
GATES = ("accuracy", "macro_f1")  # figures that `--fail-under` knows


@dataclass(frozen=True)
class Subject:
    """What was measured, for the heading."""

    task: str
    task_hash: str
    model: str
    is_calibrated: bool


@dataclass(frozen=True)
class SecondSubject:
    """A second subject that judged the same rows."""

    subject: Subject
    metrics: Metrics
    difference: Difference


@dataclass(frozen=True)
class Evaluation:
    """The rows of one file, judged."""

    file: str
    subject: Subject
    rows: tuple[Judged, ...]
    metrics: Metrics
    left_out: Counter[str]  # why -> rows
    rows_per_s: float
    flips: Mapping[str, Share]  # another typing -> rows of a sample whose label changes
    threshold: Threshold | None = None
    other: SecondSubject | None = None

    @property
    def reasons(self) -> Mapping[str, int]:
        """Why rows were left out: the most frequent reasons, and all others as one."""
        shown = dict(self.left_out.most_common(NUM_REASONS))
        others = self.left_out.total() - sum(shown.values())
        return shown | ({"for other reasons": others} if others else {})

    @property
    def mistakes(self) -> Sequence[Judged]:
        """The surest of the wrong decisions."""
        wrong = [row for row in self.rows if not row.is_right]
        return sorted(wrong, key=lambda row: -row.probability)[:NUM_MISTAKES]

    def value(self, gate: str) -> float:
        """Of a figure that `--fail-under` knows."""
        return {"accuracy": self.metrics.accuracy, "macro_f1": self.metrics.macro_f1}[gate].value


def evaluation_to_json(found: Evaluation) -> str:
    """Everything but the rows that are right."""
    summary: dict[str, Any] = {
        **{"file": found.file, "subject": asdict(found.subject), "metrics": asdict(found.metrics)},
        **{"left_out": found.reasons, "rows_per_s": round(found.rows_per_s, 1)},
        "flips": {name: asdict(share) for name, share in found.flips.items()},
        "threshold": asdict(found.threshold) if found.threshold else None,
        "other": asdict(found.other) if found.other else None,
        "mistakes": [asdict(row) for row in found.mistakes],
    }
    return json.dumps(summary, ensure_ascii=False)


def lines(found: Evaluation) -> Iterator[str]:
    """The evaluation as text."""
    yield f"{found.file}: {found.metrics.num_rows} rows, {_named(found.subject)}, {found.rows_per_s:.0f} rows/s"
    for why, count in found.reasons.items():
        yield f"  left out: {count} rows ({why})"
    yield from _metric_lines(found.metrics)
    for name, share in found.flips.items():
        yield f"flips, {name:12s} {share}"
    if found.threshold:
        yield from _threshold_lines(found.threshold)
    if found.other:
        yield f"against {_named(found.other.subject)}"
        yield f"  accuracy      {found.other.metrics.accuracy}"
        difference = found.other.difference
        yield (
            f"  only the first right: {difference.only_first}, only the other: {difference.only_second},"
            f" of {difference.num_rows}; McNemar's p = {difference.p_value:.3g}"
        )


def _named(subject: Subject) -> str:
    return f"{subject.task} {subject.task_hash} by {subject.model}"


def _metric_lines(metrics: Metrics) -> Iterator[str]:
    yield f"accuracy           {metrics.accuracy}"
    yield f"macro-F1           {metrics.macro_f1}"
    yield f"calibration error  {metrics.calibration_error}"
    yield f"abstained          {metrics.abstained}"
    if metrics.has_few_rows:
        yield f"  these rows are too few to tell more exactly; about {metrics.rows_needed} would do"
    width = max(map(len, metrics.labels))
    yield f"{'label':{width}s}  precision  recall     f1    rows"
    for each in metrics.of_labels:
        yield f"{each.label:{width}s}  {each.precision:9.3f}  {each.recall:6.3f}  {each.f1:5.3f}  {each.support:6d}"
    yield "true \\ decided  " + "  ".join(metrics.labels)
    for name, counts in zip(metrics.labels, metrics.confusion, strict=True):
        columns = zip(metrics.labels, counts, strict=True)
        yield f"{name:14s}  " + "  ".join(f"{count:{len(label)}d}" for label, count in columns)
    for band in metrics.bands:
        if band.right.total:
            yield f"confidence {band.confidence}: {band.share:.1%} of the rows, right {band.right}"


def _threshold_lines(threshold: Threshold) -> Iterator[str]:
    if threshold.probability is None:
        yield f"no probability reaches {threshold.target:g} on the first half of the rows"
        return
    yield f"right in {threshold.target:g} of the cases: from a probability of {threshold.probability:.4f} on"
    yield f"  first half, where it was found   {threshold.found_on}"
    yield f"  other half                       {threshold.checked_on}{'' if threshold.holds else '  MISSED'}"
    yield f"  share decided                    {threshold.decided}"
