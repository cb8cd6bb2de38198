"""Guessed tokens for the answers of a step, where they pay.

Only a step that does nothing but decode is filled up, and only to a few rows: up to there a row more costs little, and
beside a prompt it would make somebody wait. The room is divided evenly among the answers. Knows no torch and no text.
Owned by the engine thread.
"""

from __future__ import annotations

from collections.abc import Sequence as Series

from qwen_aio.engine.scheduling.acceptance import DraftCost
from qwen_aio.engine.scheduling.answer_sequence import AnswerSequence
from qwen_aio.engine.scheduling.scheduler import Span


class Drafter:
    """Lengthens the spans of a step, and learns from what became of them."""

    def __init__(self, *, max_rows: int) -> None:
        """`max_rows`: of a step, with its guesses."""
        self.num_guessed = 0
        self.num_accepted = 0
        self._max_rows = max_rows
        self._prices = DraftCost()

    def lengthen(self, spans: list[Span]) -> list[Span]:
        """The same spans, some of them with guesses behind. Changes their answers; not to be called twice in a step."""
        room = self._max_rows - len(spans)
        price = self._prices.price(len(spans))
        if room < 1 or price is None or not _only_decodes(spans):
            return spans
        longer = []
        for number, span in enumerate(spans):
            count = _guess(span, max_tokens=room // (len(spans) - number), price=price)
            longer.append(Span(span.sequence, span.start, span.count + count))
            room -= count
        return longer

    def learn(self, spans: Series[Span], *, seconds: float) -> None:
        """A step over these spans took so long, and all that came of it has been accepted."""
        if not _only_decodes(spans):
            return
        num_guessed = sum(span.count - 1 for span in spans)
        self._prices.learn(num_answers=len(spans), num_guessed=num_guessed, seconds=seconds)
        self.num_guessed += num_guessed
        for span in spans:
            if span.count > 1 and span.sequence.is_running:
                self._learn_outcome(span)

    def _learn_outcome(self, span: Span) -> None:
        assert isinstance(span.sequence, AnswerSequence)
        num_accepted = span.sequence.num_computed - span.start - 1
        span.sequence.habit.learn(num_guessed=span.count - 1, num_accepted=num_accepted)
        self.num_accepted += num_accepted


def _only_decodes(spans: Series[Span]) -> bool:
    return all(span.is_decoding for span in spans)


def _guess(span: Span, *, max_tokens: int, price: float) -> int:
    answer = span.sequence
    assert isinstance(answer, AnswerSequence)
    return answer.guess(max_tokens=max_tokens) if answer.habit.wants_to_guess(price=price) else 0
