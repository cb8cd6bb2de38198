"""Judged rows as tests need them."""

from qwen_aio.evaluation.judged import Judged

LABELS = ("positive", "neutral", "negative")


def judged(number=1, truth="positive", label="positive", probability=0.9, *, best_label=None, **more):
    confidence = "高" if probability >= 0.85 else "中" if probability >= 0.6 else "低"
    found = {"confidence": confidence, "abstained": False, "is_calibrated": True, "text": f"text {number}"} | more
    found.setdefault("scores", {best_label or label: probability})
    return Judged(
        number=number, truth=truth, label=label, best_label=best_label or label, probability=probability, **found
    )
