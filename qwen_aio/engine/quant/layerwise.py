"""Texts on their way through a model one layer at a time, so that no two layers need be in memory together.

Knows rows and layers; whose layers they are, and in which number format, is the caller's business.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Series
from dataclasses import replace

import torch
from torch import Tensor

from qwen_aio.core import Truncation
from qwen_aio.engine.config import EngineLimits, ModelConfig
from qwen_aio.engine.kv.pool import KvPool
from qwen_aio.engine.kv.radix_cache import RadixCache
from qwen_aio.engine.model.attention import ForwardBatch, gather_rows, ordered
from qwen_aio.engine.model.forward import Layer, RmsNorm, rotations
from qwen_aio.engine.model.linear import Embedding
from qwen_aio.engine.scheduling.scheduler import Scheduler
from qwen_aio.engine.scheduling.sequence import Sequence

BATCH_ROWS = 256  # what lies between two operators stays small
MAX_RUNNING = 64

HiddenStates = list[Tensor]  # of all rows, batch by batch: (n, hidden) each


class LayerwiseSequence(Sequence):
    """A text of which it is wanted what comes next after every token."""

    def __init__(self, name: str, ids: list[int]) -> None:
        super().__init__(name, ids, len(ids), len(ids), 0.0, Truncation())

    @property
    def first_logit_row(self) -> int:
        return 0


class LayerwisePass:
    """What the sequences ask for, cut into batches as an engine would; a common beginning is computed once.

    It holds the keys and values of one layer, which every pass through a layer writes anew.
    """

    def __init__(self, sequences: Series[Sequence], config: ModelConfig) -> None:
        """`sequences` are new ones; they are finished afterwards."""
        num_slots = 2 * sum(sequence.num_rows for sequence in sequences)  # never short; unused ones take no memory
        self._memory = KvPool(replace(config, num_layers=1), num_slots)
        self.wanted: list[tuple[Sequence, int]] = []  # whose row, in the order of `outcome`
        self._batches = list(self._planned(sequences, num_slots))
        turns = rotations(config, max(len(sequence.ids) for sequence in sequences))
        self._turns = [turns[rows.positions] for rows in self._batches]

    def enter(self, embedding: Embedding) -> HiddenStates:
        """Where all rows begin."""
        return [embedding(rows.ids) for rows in self._batches]

    def through(self, layer: Layer, states: HiddenStates) -> None:
        """Take all rows through the next layer, in place."""
        for number, (rows, turn) in enumerate(zip(self._batches, self._turns, strict=True)):
            states[number] = layer(states[number], rows, self._memory, number=0, turn=turn)

    def outcome(self, norm: RmsNorm, states: HiddenStates) -> Tensor:
        """Final hidden states of the wanted rows, (len(wanted), hidden)."""
        return torch.cat([norm(x[rows.wanted]) for x, rows in zip(states, self._batches, strict=True)])

    def _planned(self, sequences: Series[Sequence], num_slots: int) -> Iterator[ForwardBatch]:
        limits = EngineLimits(max_context=num_slots, max_running=MAX_RUNNING, max_batch_tokens=BATCH_ROWS)
        scheduler = Scheduler(RadixCache(num_slots), limits)
        for sequence in sequences:
            scheduler.add(sequence)
        while scheduler.has_work:
            scheduler.admit(now_s=0.0)
            spans = ordered(scheduler.next_batch())
            self.wanted.extend((span.sequence, row) for span in spans for row in span.logit_rows)
            yield gather_rows(spans, self._memory)
            for span in spans:
                span.sequence.advance(span.end)
                if span.sequence.is_finished:
                    scheduler.retire(span.sequence)
