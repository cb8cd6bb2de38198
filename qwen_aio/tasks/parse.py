"""Scores -> Decision: probabilities over the labels, a confidence, neutral when none is clear.

Nothing is parsed out of free text, so a decision is always well formed.
"""

from __future__ import annotations

import math

from qwen_aio.core import Task
from qwen_aio.result import Confidence, Decision, Scores


def decide(task: Task, scores: Scores, *, temperature: float | None = None) -> Decision:
    """The decision of `task` from `scores`, one per label in the task's order.

    The probabilities are the softmax of the labels' log probabilities, divided by `temperature` if
    the task is calibrated for the model (Guo et al. 2017, temperature scaling); `label_mass` is the
    labels' share of all continuations.
    """
    probabilities = _softmax([score.logprob / (temperature or 1.0) for score in scores.labels])
    by_name = {label.name: p for label, p in zip(task.labels, probabilities, strict=True)}
    best = max(by_name, key=lambda name: by_name[name])
    neutral = task.neutral if by_name[best] < task.neutral_below else None
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
        calibrated=temperature is not None,
    )


def _softmax(logprobs: list[float]) -> list[float]:
    top = max(logprobs)
    weights = [math.exp(logprob - top) for logprob in logprobs]
    return [weight / sum(weights) for weight in weights]


def _confidence(task: Task, probability: float) -> Confidence:
    if probability >= task.high:
        return "高"
    return "中" if probability >= task.medium else "低"
