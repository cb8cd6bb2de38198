"""Scores -> Decision: probabilities over the labels, a confidence, neutral when none is clear.

Nothing is parsed out of free text, so a decision is always well formed.
"""

from __future__ import annotations

import math

from qwen_aio.core import Task
from qwen_aio.language import Language
from qwen_aio.result import Confidence, Decision, Scores
from qwen_aio.safeguards import Calibration

UNCALIBRATED = Calibration({})


def decide(
    task: Task, scores: Scores, *, calibration: Calibration = UNCALIBRATED, language: Language = "en"
) -> Decision:
    """The decision of `task` from `scores`, one per label in the task's order, as `calibration` reads them.

    `language` is the text's; `label_mass` is the labels' share of all continuations.
    """
    logprobs = {label.name: score.logprob for label, score in zip(task.labels, scores.labels, strict=True)}
    by_name = calibration.read(logprobs, language)
    best = max(by_name, key=lambda name: by_name[name])
    least = task.neutral_below if calibration.neutral_below is None else calibration.neutral_below
    neutral = task.neutral if by_name[best] < least else None
    label = task.label(neutral or best)
    confidence: Confidence = "低" if neutral else _confidence(task, by_name[best])
    named = {"label": label.text, "confidence": confidence, "emoji": label.emoji}
    return Decision(
        task=task.name,
        label=label.name,
        emotion=label.text,
        emoji=label.emoji,
        confidence=confidence,
        best_label=best,
        probability=by_name[best],
        scores=by_name,
        abstained=neutral is not None,
        label_mass=min(1.0, sum(math.exp(score.logprob) for score in scores.labels)),
        text=task.text_format.format(**named),
        merged=task.merged_format.format(**named),
        usage=scores.usage,
        timings=scores.timings,
        truncation=scores.truncation,
        calibrated=calibration.is_used_for(language),
    )


def _confidence(task: Task, probability: float) -> Confidence:
    if probability >= task.high:
        return "高"
    return "中" if probability >= task.medium else "低"
