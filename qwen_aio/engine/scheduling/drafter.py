"""Speculative decoding: draft tokens for the answers of a step, where they pay.

Only a step that does nothing but decode gets drafts, up to a few rows: there one more row costs
little, while beside a prompt it would delay a request. The rows are divided evenly among the
answers. Knows no torch and no text. Owned by the engine thread.
"""

from __future__ import annotations

from collections import abc

from qwen_aio.engine.scheduling.acceptance import DraftCost
from qwen_aio.engine.scheduling.answer_sequence import AnswerSequence
from qwen_aio.engine.scheduling.scheduler import Span


class Drafter:
    """Adds draft tokens to a step, and learns from how many are accepted."""

    def __init__(self, *, max_rows: int) -> None:
        """`max_rows`: of a step, drafts included."""
        self.num_drafted = 0
        self.num_accepted = 0
        self._max_rows = max_rows
        self._cost = DraftCost()

    def add_drafts(self, spans: list[Span]) -> list[Span]:
        """The same spans, some longer by draft tokens. Changes their answers: call once a step."""
        room = self._max_rows - len(spans)
        threshold = self._cost.threshold(len(spans))
        if room < 1 or threshold is None or not _only_decodes(spans):
            return spans
        longer = []
        for number, span in enumerate(spans):
            count = _draft(span, max_tokens=room // (len(spans) - number), threshold=threshold)
            longer.append(Span(span.sequence, span.start, span.count + count))
            room -= count
        return longer

    def learn(self, spans: abc.Sequence[Span], *, seconds: float) -> None:
        """Take the duration of a step over these spans, after their tokens were accepted."""
        if not _only_decodes(spans):
            return
        num_drafted = sum(span.count - 1 for span in spans)
        self._cost.learn(num_answers=len(spans), num_drafted=num_drafted, seconds=seconds)
        self.num_drafted += num_drafted
        for span in spans:
            answer = span.sequence
            if span.count > 1 and answer.is_running:
                assert isinstance(answer, AnswerSequence)
                num_accepted = answer.num_computed - span.start - 1
                answer.acceptance.learn(num_drafted=span.count - 1, num_accepted=num_accepted)
                self.num_accepted += num_accepted


def _only_decodes(spans: abc.Sequence[Span]) -> bool:
    return all(span.is_decoding for span in spans)


def _draft(span: Span, *, max_tokens: int, threshold: float) -> int:
    answer = span.sequence
    assert isinstance(answer, AnswerSequence)
    return answer.draft(max_tokens=max_tokens) if answer.acceptance.should_draft(threshold=threshold) else 0
