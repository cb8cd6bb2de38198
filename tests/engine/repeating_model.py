"""An exact model that mostly repeats itself: one answer accepts drafts and rejects others."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from qwen_aio.engine.kv.pool import KvPool
from qwen_aio.engine.model.attention import ForwardBatch
from tests.engine.exact_model import ExactModel


class RepeatingModel(ExactModel):
    """Seven times in eight the next token depends on the newest one alone, else on all."""

    def __init__(self, *, take_time: Callable[[int], object] = lambda _: None) -> None:
        """`take_time` is called with the number of rows of every step."""
        self._take_time = take_time

    def forward(self, batch: ForwardBatch, pool: KvPool) -> Tensor:
        """(num_logit_rows, 2): ExactModel's number, and the row's own token."""
        self._take_time(len(batch.ids))
        return torch.stack([super().forward(batch, pool), batch.ids[batch.logit_rows]], dim=1)

    def logits(self, hidden: Tensor) -> Tensor:
        """(n, 2) -> (n, vocab)"""
        return torch.stack([self._next(number, token) for number, token in hidden.tolist()])

    def _next(self, number: int, token: int) -> Tensor:
        return 4 * self._drawn(token % 16) if number % 8 else self._drawn(number)
