"""The phrases that moved a decision, found by leaving each of them out (Zeiler and Fergus 2014, for words).

The texts without a phrase share the prompt's head and their own beginning with the text that was just decided, so the
engine computes only what lies behind the gap, all of them in one batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from qwen_aio.core import Task
from qwen_aio.result import Decision, Explanation, Phrase, Usage, added_up
from qwen_aio.serving.interruption import all_results
from qwen_aio.tasks.explanation import MAX_DIVIDED_CHARS, phrases_of, reason_of
from qwen_aio.visible import has_visible
from qwen_aio.worker.execution.safety import Decide


async def explained(
    task: Task, decision: Decision, text: str, *, divide: Callable[[str], list[str]], decide: Decide
) -> Decision:
    """`decision` of `text` with its explanation; `divide` divides a text at the model's tokens.

    Where the text is one phrase there is nothing to leave out. Raises what `decide` raises.
    """
    started_at = time.monotonic()
    parts = phrases_of(divide(text[:MAX_DIVIDED_CHARS]))
    gaps = _gaps([*parts[:-1], "".join(parts[-1:]) + text[MAX_DIVIDED_CHARS:]])
    others = await all_results(decide(rest) for _, _, rest in gaps)
    label = decision.best_label
    phrases = [
        Phrase(phrase, start, decision.probability - other.scores[label])
        for (phrase, start, _), other in zip(gaps, others, strict=True)
    ]
    phrases.sort(key=lambda phrase: -abs(phrase.weight))
    reason = reason_of(task, decision, phrases, text) if phrases else None
    usage = added_up(Usage, [other.usage for other in others])
    total_ms = (time.monotonic() - started_at) * 1000
    return replace(decision, explanation=Explanation(label, tuple(phrases), reason, usage, total_ms))


def _gaps(phrases: Sequence[str]) -> list[tuple[str, int, str]]:
    """(phrase, characters before it, the text without it), where that leaves anything to decide about."""
    gaps, start = [], 0
    for number, phrase in enumerate(phrases):
        rest = "".join((*phrases[:number], *phrases[number + 1 :]))
        if has_visible(phrase) and has_visible(rest):
            gaps.append((phrase, start, rest))
        start += len(phrase)
    return gaps
