"""Sequences run through a model one layer at a time, so that one layer is in memory at once.

The caller supplies the layers, in any number format.
"""

from __future__ import annotations

from collections import abc
from dataclasses import replace

import torch
from torch import Tensor

from qwen_aio.engine.config import EngineLimits, ModelConfig
from qwen_aio.engine.kv.radix_cache import RadixCache
from qwen_aio.engine.model.attention import ForwardBatch, forward_batch
from qwen_aio.engine.model.forward import Layer, RmsNorm, rotations
from qwen_aio.engine.model.linear import Embedding
from qwen_aio.engine.model.pool import KvPool
from qwen_aio.engine.scheduling.scheduler import Scheduler, Span, in_batch_order
from qwen_aio.engine.scheduling.sequence import Sequence
from qwen_aio.result import Truncation

BATCH_ROWS = 256  # keeps intermediate tensors small
MAX_RUNNING = 64

HiddenStates = list[Tensor]  # of all rows, batch by batch: (n, hidden) each


class LayerwiseSequence(Sequence):
    """A text whose logits are needed after every token."""

    def __init__(self, name: str, ids: list[int]) -> None:
        super().__init__(name, ids, len(ids), len(ids), 0.0, Truncation())

    @property
    def first_logit_row(self) -> int:
        return 0


class LayerwisePass:
    """The batches in which an engine would compute the sequences, shared prefixes once.

    Holds the keys and values of one layer, which every layer overwrites.
    """

    def __init__(self, sequences: abc.Sequence[Sequence], config: ModelConfig) -> None:
        """`sequences` must be new; they are finished afterwards."""
        self._kv_pool = KvPool(replace(config, num_layers=1), num_slots_of(sequences))
        self.logit_rows: list[tuple[Sequence, int]] = []  # sequence and row of each of `final_states`
        self._batches: list[ForwardBatch] = []
        for spans in steps_of(sequences):
            self.logit_rows.extend((span.sequence, row) for span in spans for row in span.logit_rows)
            self._batches.append(forward_batch(spans, self._kv_pool))
        table = rotations(config, max(len(sequence.ids) for sequence in sequences))
        self._rotations = [table[batch.positions] for batch in self._batches]

    def embed(self, embedding: Embedding) -> HiddenStates:
        """The hidden states of all rows before the first layer."""
        return [embedding(batch.ids) for batch in self._batches]

    def run_layer(self, layer: Layer, states: HiddenStates) -> None:
        """Run all rows through the next layer, in place."""
        for number, (batch, rotation) in enumerate(zip(self._batches, self._rotations, strict=True)):
            states[number] = layer(states[number], batch, self._kv_pool, number=0, rotation=rotation)

    def final_states(self, norm: RmsNorm, states: HiddenStates) -> Tensor:
        """Final hidden states, (len(logit_rows), hidden)."""
        return torch.cat([norm(x[batch.logit_rows]) for x, batch in zip(states, self._batches, strict=True)])


def num_slots_of(sequences: abc.Sequence[Sequence]) -> int:
    """Always enough; unused slots take no memory."""
    return 2 * sum(sequence.num_rows for sequence in sequences)


def steps_of(sequences: abc.Sequence[Sequence]) -> abc.Iterator[list[Span]]:
    """The steps in which an engine would compute the sequences; each is computed before the next is asked for."""
    num_slots = num_slots_of(sequences)
    limits = EngineLimits(max_context=num_slots, max_running=MAX_RUNNING, max_batch_tokens=BATCH_ROWS)
    scheduler = Scheduler(RadixCache(num_slots), limits)
    for sequence in sequences:
        scheduler.add(sequence)
    while scheduler.has_work:
        scheduler.admit(now_s=0.0)
        spans = in_batch_order(scheduler.next_batch())
        yield spans
        for span in spans:
            span.sequence.advance(span.end)
            if span.sequence.is_finished:
                scheduler.retire(span.sequence)
