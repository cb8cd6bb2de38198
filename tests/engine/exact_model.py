"""A model without rounding over the real KvPool: its batches cannot differ, not in the last bit.

In a real model other rows of a step may change the choice between nearly equal tokens, about one in
10,000 of a random checkpoint. In this one they cannot, so that properties of the engine hold for
every example.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qwen_aio.engine.model.attention import Part, forward_batch
from qwen_aio.engine.model.pool import KvPool
from qwen_aio.engine.scheduling.scheduler import Span
from tests.engine.tiny_config import TINY

PRIME = 1_000_003


class ExactModel:
    """The next token depends on all tokens and positions a row attends to, in integers."""

    config = replace(TINY, head_dim=64)

    token_bytes = config.token_bytes

    def new_pool(self, num_slots: int) -> KvPool:
        return KvPool(self.config, num_slots)

    def forward(self, spans: Sequence[Span], pool: KvPool) -> NDArray[np.float32]:
        """(num_logit_rows,): a number made of all that the row attends to."""
        batch = forward_batch(spans, pool)
        kept = torch.zeros(len(batch.ids), 2, 64)
        kept[:, 0, 0], kept[:, 0, 1] = batch.ids, batch.positions
        pool.write(0, batch.slots, kept)
        numbers = torch.zeros(len(batch.ids), dtype=torch.long)
        for part in (*batch.own, *batch.past):
            ids, places = part.extent.of(0)[0][0, 0, :, :2].long().unbind(-1)
            terms = (ids + 1) * (places + 7) ** 2 % PRIME
            numbers[part.rows] += (terms * _is_seen(part, length=len(ids))).sum(-1)
        numbers %= PRIME
        return numbers[batch.logit_rows].float().numpy()  # exact, as PRIME is

    def logits(self, hidden: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n,) -> (n, vocab)"""
        return np.stack([self._drawn(int(number)) for number in hidden])

    def _drawn(self, seed: int) -> NDArray[np.float32]:
        generator = torch.Generator().manual_seed(seed)
        return (4 * torch.randn(self.config.vocab_size, generator=generator)).numpy()


def _is_seen(part: Part, *, length: int) -> Tensor:
    """(rows, length)"""
    if part.mask is not None:
        return part.mask == 0
    return torch.ones(part.rows.stop - part.rows.start, length, dtype=torch.bool)
