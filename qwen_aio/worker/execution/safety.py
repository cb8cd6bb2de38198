"""Is the writer, or somebody near, in danger? Decided before the first token of an answer.

The safety task decides over every window of the last two user turns and the message, read as one
text, since the danger may show only in both together; the most dangerous window counts. Its
thresholds hold for one model (calibration.json). Any other model is not asked: the word rule, which
is asked before, then stands alone.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from qwen_aio.result import Decision, Safety
from qwen_aio.safeguards import SafetyPolicy
from qwen_aio.serving.interruption import all_results

WINDOW_CHARS = 240  # as in training
WINDOW_STEP = 160  # a sentence of 80 characters lies whole in one window at least
MAX_AT_ONCE = 8  # windows in the engine's queue

Decide = Callable[[str], Coroutine[Any, Any, Decision]]


async def decide_safety(
    texts: Sequence[str], policy: SafetyPolicy, thresholds: Mapping[str, float], *, decide: Decide
) -> tuple[Safety, list[Decision]]:
    """What holds for `texts`, oldest first, and the decisions it is made of. Raises what `decide` raises."""
    pieces = windows("\n".join(text.strip() for text in texts))
    decisions: list[Decision] = []
    for start in range(0, len(pieces), MAX_AT_ONCE):
        decisions += await all_results(map(decide, pieces[start : start + MAX_AT_ONCE]))
    return most_dangerous(decisions, policy, thresholds), decisions


def windows(text: str) -> list[str]:
    """Overlapping pieces of `text` that together hold every character; equal ones once."""
    starts = range(0, max(len(text) - (WINDOW_CHARS - WINDOW_STEP), 1), WINDOW_STEP)
    return list(dict.fromkeys(text[start : start + WINDOW_CHARS] for start in starts))


def most_dangerous(decisions: Sequence[Decision], policy: SafetyPolicy, thresholds: Mapping[str, float]) -> Safety:
    """The first label of the policy that reaches its threshold in any window, else the harmless one.

    `probability` is that label's in the window that shows it best; of the harmless one, the least.
    """
    for label in policy.replies:
        highest = max(decision.scores[label] for decision in decisions)
        if label in thresholds and highest >= thresholds[label]:
            return Safety(label, highest, "model")
    return Safety(policy.harmless, min(decision.scores[policy.harmless] for decision in decisions), "model")
