"""Attention of many sequences over one KvPool, without copying it.

The slots that a row attends to form *extents* of neighbouring slots: the tokens computed earlier,
often a prefix shared with other sequences, and those that its own sequence adds in this step. One
operator computes attention over one extent; the results are merged by their logsumexp:
softmax(a ++ b) v is the mean of softmax(a) v_a and softmax(b) v_b, weighted with exp(logsumexp).
A step is planned once for all layers. Knows no weights.
"""

from __future__ import annotations

from collections import abc
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

import torch
from torch import Tensor

from qwen_aio.engine.kv.radix_cache import SlotRuns
from qwen_aio.engine.model.pool import Extent, KvPool
from qwen_aio.engine.scheduling.scheduler import Span

# Slots in more runs than this are copied together: a call costs about as much as copying 100 rows.
MAX_RUNS = 3
# A prompt is cut into blocks of so many rows; scores to the rows after a block are not computed.
BLOCK_ROWS = 64


@dataclass(frozen=True, eq=False)
class Part:
    """Consecutive rows of a step that attend to one extent: to all of it, or as `mask` says."""

    rows: slice
    extent: Extent
    mask: Tensor | None = None  # (rows, length): 0 or -inf


@dataclass(frozen=True, eq=False)
class ForwardBatch:
    """The rows of one step, as the model takes them."""

    ids: Tensor  # (n,)
    positions: Tensor  # (n,)
    slots: Tensor  # (n,) of the new keys and values
    own: tuple[Part, ...]  # every row once, in order: extents that end with the rows
    past: tuple[Part, ...]  # further extents of some rows
    logit_rows: Tensor  # rows whose logits are needed


_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default


def forward_batch(spans: abc.Sequence[Span], pool: KvPool) -> ForwardBatch:
    """The tensors of `spans`, which are `in_batch_order`."""
    ids: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    logit_rows: list[int] = []
    for span in spans:
        logit_rows.extend(row - span.start + len(ids) for row in span.logit_rows)
        ids.extend(span.sequence.ids[span.start : span.end])
        positions.extend(span.sequence.positions(span.start, span.end))
        slots.extend(span.lease.slots[span.start : span.end])
    own, past = _parts(spans, pool)
    return ForwardBatch(
        ids=torch.tensor(ids),
        positions=torch.tensor(positions),
        slots=torch.tensor(slots),
        own=tuple(own),
        past=tuple(past),
        logit_rows=torch.tensor(logit_rows, dtype=torch.long),  # perhaps none
    )


def attend(qkv: Tensor, batch: ForwardBatch, pool: KvPool, *, layer: int, num_heads: int) -> Tensor:
    """Store the new keys and values, then attend: (n, heads + 2 kv heads, d) -> (n, heads * d)."""
    pool.write(layer, batch.slots, qkv[:, num_heads:])
    queries = qkv[:, :num_heads].transpose(0, 1).unsqueeze(0)  # (1, heads, n, d)
    results = [_attend_part(queries, part, layer) for part in batch.own]
    output = _concatenated([output for output, _ in results])
    if batch.past:
        lse = _concatenated([lse for _, lse in results])
        for part in batch.past:
            _merge(output[part.rows], lse[part.rows], *_attend_part(queries, part, layer))
    return output.view(len(qkv), -1)


def _attend_part(queries: Tensor, part: Part, layer: int) -> tuple[Tensor, Tensor]:
    """Attention of the rows of `part`, (rows, heads, d), and its logsumexp, (rows, heads)."""
    # The CPU operator of scaled_dot_product_attention: only this one returns the logsumexp.
    output, lse = _flash(queries[:, :, part.rows], *part.extent.of(layer), attn_mask=part.mask)
    return output[0].transpose(0, 1), lse[0].t()


def _concatenated(blocks: list[Tensor]) -> Tensor:
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks)


def _merge(output: Tensor, lse: Tensor, more: Tensor, more_lse: Tensor) -> None:
    """Merge attention over another extent into `output` and `lse`, in place."""
    output.lerp_(more, torch.sigmoid(more_lse - lse).unsqueeze(-1))
    torch.logaddexp(lse, more_lse, out=lse)


def _parts(spans: abc.Sequence[Span], pool: KvPool) -> tuple[list[Part], list[Part]]:
    """The extents that the spans add themselves, in order, and those they attend to besides."""
    own: list[Part] = []
    past: list[Part] = []
    start = 0
    for _, group in groupby(spans, key=attrgetter("first_slot")):
        members = list(group)
        num_shared = _num_shared(members)
        if num_shared:
            rows = slice(start, start + sum(span.count for span in members))
            past.append(Part(rows, pool.extent(members[0].lease.runs_of(0, num_shared))))
        for block in (block for span in members for block in _blocks(span)):
            rows = slice(start, start + block.count)
            earlier, last, mask = _extents(block, first=num_shared)
            own.append(Part(rows, pool.extent(last), mask))
            past.extend(Part(rows, pool.extent(runs)) for runs in earlier)
            start = rows.stop
    return own, past


def _blocks(span: Span) -> abc.Iterator[Span]:
    for start in range(span.start, span.end, BLOCK_ROWS):
        yield Span(span.sequence, start, min(BLOCK_ROWS, span.end - start))


def _num_shared(spans: list[Span]) -> int:
    """First rows that all of several spans have in the same neighbouring slots."""
    if len(spans) == 1:
        return 0
    return min(min(len(span.lease.runs[0]), span.start, span.sequence.num_prompt) for span in spans)


def _extents(span: Span, *, first: int) -> tuple[list[SlotRuns], SlotRuns, Tensor | None]:
    """From row `first` on: extents without a mask, the one that ends with the rows, its mask."""
    lease, num_prompt = span.lease, span.sequence.num_prompt
    begin = span.start if span.sequence.tree is None else min(span.start, num_prompt)  # all attend to earlier rows
    *earlier, last = _split(lease.runs_of(first, span.end))
    length = sum(map(len, last))
    if length < span.end - begin:  # the rows themselves are scattered
        earlier, last = _split(lease.runs_of(first, begin)), lease.runs_of(begin, span.end)
        length = span.end - begin
    return earlier, last, _mask(span, span.end - length) if span.count > 1 or begin < span.start else None


def _split(runs: SlotRuns) -> list[SlotRuns]:
    """Each run by itself, unless there are too many."""
    return [[run] for run in runs] if len(runs) <= MAX_RUNS else [runs]


def _mask(span: Span, begin: int) -> Tensor:
    """(count, end - begin), 0 or -inf: causal; in a label tree, prompt and ancestors only."""
    tree, num_prompt = span.sequence.tree, span.sequence.num_prompt
    hidden = torch.ones(span.count, span.end - begin, dtype=torch.bool).triu_(1 + span.start - begin)
    if tree is not None:
        for row in range(max(span.start, num_prompt), span.end):
            hidden[row - span.start, num_prompt - begin :] = True
            hidden[row - span.start, [num_prompt - begin + at for at in tree.ancestors(row - num_prompt)]] = False
    return torch.zeros(hidden.shape).masked_fill_(hidden, -torch.inf)
