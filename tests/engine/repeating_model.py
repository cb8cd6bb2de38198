"""An exact model that mostly repeats itself: one answer accepts drafts and rejects others."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from qwen_aio.engine.model.pool import KvPool
from qwen_aio.engine.scheduling.scheduler import Span
from tests.engine.exact_model import ExactModel


class RepeatingModel(ExactModel):
    """Seven times in eight the next token depends on the newest one alone, else on all."""

    def __init__(self, *, take_time: Callable[[int], object] = lambda _: None) -> None:
        """`take_time` is called with the number of rows of every step."""
        self._take_time = take_time

    def forward(self, spans: Sequence[Span], pool: KvPool) -> NDArray[np.float32]:
        """(num_logit_rows, 2): ExactModel's number, and the row's own token."""
        self._take_time(sum(span.count for span in spans))
        tokens = [span.sequence.ids[row] for span in spans for row in span.logit_rows]
        return np.stack([super().forward(spans, pool), np.array(tokens, np.float32)], axis=1)

    def logits(self, hidden: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, 2) -> (n, vocab)"""
        return np.stack([self._next(int(number), int(token)) for number, token in hidden])

    def _next(self, number: int, token: int) -> NDArray[np.float32]:
        return 4 * self._drawn(token % 16) if number % 8 else self._drawn(number)
