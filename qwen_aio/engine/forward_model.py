"""What the engine needs of a model: the forward pass over the rows of many sequences. Imports no torch.

native.model.NativeQwen computes it in C++, model.forward.Qwen2 with torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from qwen_aio.engine.config import ModelConfig
from qwen_aio.engine.scheduling.scheduler import Span

Pool = TypeVar("Pool")  # the keys and values of one engine, as its model keeps them


class ForwardModel(Protocol[Pool]):
    """The forward pass of one model. Read only once loaded: forked processes share it."""

    @property
    def config(self) -> ModelConfig:
        """Shape and constants of the model."""

    @property
    def token_bytes(self) -> int:
        """Memory of one cached token: its keys and values, and the cache's own objects."""

    def new_pool(self, num_slots: int) -> Pool:
        """Memory for the keys and values of so many tokens."""

    def forward(self, spans: Sequence[Span], pool: Pool) -> NDArray[np.float32]:
        """Final hidden states of the logit rows of all spans, in order: (num_logit_rows, hidden). Fills the pool.

        `spans` are `in_batch_order`. Keys and values of a row go to the slot of its lease, and those of the
        rows that it attends to are there already or are of this step.
        """

    def logits(self, hidden: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, hidden) -> (n, vocab), a new array that the caller may overwrite."""
