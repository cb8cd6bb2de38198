"""Attention of many sequences over one memory of keys and values, without copying it.

What a row sees is cut into *stretches* of neighbouring slots: what was computed earlier (often shared with others: the
fixed beginning of a task), and what its own sequence adds now. Attention over each stretch is one operator, whose
results are joined by how much weight each stretch carries: softmax(a ++ b) v is the mean of softmax(a) v_a and
softmax(b) v_b, weighted with exp(logsumexp). All that a step needs to know is worked out once, for every layer.
Knows no weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Series
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from qwen_aio.engine.kv.pool import Extent, KvPool
from qwen_aio.engine.kv.radix_cache import Lease, SlotRuns
from qwen_aio.engine.scheduling.scheduler import Span

# A sequence whose slots are scattered over more runs than this has them copied together: a call costs about what
# copying a hundred rows does.
MAX_RUNS = 3
# A prompt's rows are cut into blocks of so many, since what stands behind a block is not computed for it at all.
BLOCK_ROWS = 64


@dataclass(frozen=True, eq=False)
class Part:
    """Consecutive rows of a step that look at one stretch: at all of it, or at what `mask` leaves."""

    rows: slice
    stretch: Extent
    mask: Tensor | None = None  # (rows, length): 0 or -inf


@dataclass(frozen=True, eq=False)
class ForwardBatch:
    """A step as the model takes it."""

    ids: Tensor  # (n,)
    positions: Tensor  # (n,)
    slots: Tensor  # (n,) where their keys and values go
    own: tuple[Part, ...]  # every row once, in order: stretches that end with the rows themselves
    past: tuple[Part, ...]  # what some rows see besides
    wanted: Tensor  # rows whose outcome is needed


_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default


def ordered(spans: Series[Span]) -> list[Span]:
    """The order in which `gather_rows` wants the spans: decoding rows that share a beginning side by side."""
    return sorted(spans, key=_first_slot)


def gather_rows(spans: Series[Span], memory: KvPool) -> ForwardBatch:
    """Tensors for `spans`, which are in `ordered` order."""
    ids: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    wanted: list[int] = []
    for span in spans:
        wanted.extend(row - span.start + len(ids) for row in span.logit_rows)
        ids.extend(span.sequence.ids[span.start : span.end])
        positions.extend(span.sequence.positions(span.start, span.end))
        slots.extend(_lease(span).slots[span.start : span.end])
    own, past = _parts(spans, memory)
    return ForwardBatch(
        ids=torch.tensor(ids),
        positions=torch.tensor(positions),
        slots=torch.tensor(slots),
        own=tuple(own),
        past=tuple(past),
        wanted=torch.tensor(wanted, dtype=torch.long),  # of no rows, too
    )


def attend(qkv: Tensor, rows: ForwardBatch, memory: KvPool, *, layer: int, num_heads: int) -> Tensor:
    """Keep the new keys and values, then let every row look: (n, heads + 2 kv heads, d) -> (n, heads * d)."""
    memory.write(layer, rows.slots, qkv[:, num_heads:])
    queries = qkv[:, :num_heads].transpose(0, 1).unsqueeze(0)  # (1, heads, n, d)
    looks = [_look(queries, part, layer) for part in rows.own]
    seen = _under_one_another([its for its, _ in looks])
    if rows.past:
        weight = _under_one_another([its for _, its in looks])
        for part in rows.past:
            _join(seen[part.rows], weight[part.rows], *_look(queries, part, layer))
    return seen.view(len(qkv), -1)


def _look(queries: Tensor, part: Part, layer: int) -> tuple[Tensor, Tensor]:
    """What the rows of `part` see, (rows, heads, d), and the logsumexp of their scores, (rows, heads)."""
    # The operator behind scaled_dot_product_attention on a CPU: it alone tells the logsumexp.
    seen, weight = _flash(queries[:, :, part.rows], *part.stretch.of(layer), attn_mask=part.mask)
    return seen[0].transpose(0, 1), weight[0].t()


def _under_one_another(blocks: list[Tensor]) -> Tensor:
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks)


def _join(seen: Tensor, weight: Tensor, more: Tensor, its_weight: Tensor) -> None:
    """Mix what the same rows saw elsewhere into `seen` and `weight`, in place."""
    seen.lerp_(more, torch.sigmoid(its_weight - weight).unsqueeze(-1))
    torch.logaddexp(weight, its_weight, out=weight)


def _lease(span: Span) -> Lease:
    assert span.sequence.lease is not None
    return span.sequence.lease


def _first_slot(span: Span) -> int:
    return _lease(span).slots[0]


def _parts(spans: Series[Span], memory: KvPool) -> tuple[list[Part], list[Part]]:
    """What every span adds itself, in order, and what they see besides."""
    own: list[Part] = []
    past: list[Part] = []
    start = 0
    for _, family in groupby(spans, key=_first_slot):
        members = list(family)
        shared = _num_shared(members)
        if shared:
            rows = slice(start, start + sum(span.count for span in members))
            past.append(Part(rows, memory.stretch(_lease(members[0]).part(0, shared))))
        for span in members:
            for block in _blocks(span):
                rows = slice(start, start + block.count)
                earlier, last, mask = _seen(block, first=shared)
                own.append(Part(rows, memory.stretch(last), mask))
                past.extend(Part(rows, memory.stretch(runs)) for runs in earlier)
                start = rows.stop
    return own, past


def _blocks(span: Span) -> Iterator[Span]:
    for start in range(span.start, span.end, BLOCK_ROWS):
        yield Span(span.sequence, start, min(BLOCK_ROWS, span.end - start))


def _num_shared(spans: list[Span]) -> int:
    """Rows at the beginning of all of several spans that lie in the same neighbouring slots."""
    if len(spans) == 1:
        return 0
    return min(min(len(_lease(span).runs[0]), span.start, span.sequence.num_prompt) for span in spans)


def _seen(span: Span, *, first: int) -> tuple[list[SlotRuns], SlotRuns, Tensor | None]:
    """What the rows of `span` see from row `first` on: stretches seen whole, then one that ends with the rows."""
    lease, num_prompt = _lease(span), span.sequence.num_prompt
    begin = span.start if span.sequence.tree is None else min(span.start, num_prompt)  # all before is seen by all
    *earlier, last = _stretches(lease.part(first, span.end))
    length = sum(map(len, last))
    if length < span.end - begin:  # the rows themselves lie scattered
        earlier, last, length = _stretches(lease.part(first, begin)), lease.part(begin, span.end), span.end - begin
    return earlier, last, _mask(span, span.end - length) if span.count > 1 or begin < span.start else None


def _stretches(runs: SlotRuns) -> list[SlotRuns]:
    """Each run by itself, unless there are too many."""
    return [[run] for run in runs] if len(runs) <= MAX_RUNS else [runs]


def _mask(span: Span, begin: int) -> Tensor:
    """(count, end - begin), 0 or -inf: a row sees those before it and itself; on a branch, prompt and branch."""
    tree, num_prompt = span.sequence.tree, span.sequence.num_prompt
    hidden = torch.ones(span.count, span.end - begin, dtype=torch.bool).triu_(1 + span.start - begin)
    if tree is not None:
        for row in range(max(span.start, num_prompt), span.end):
            hidden[row - span.start, num_prompt - begin :] = True
            hidden[row - span.start, [num_prompt - begin + at for at in tree.ancestors(row - num_prompt)]] = False
    return torch.zeros(hidden.shape).masked_fill_(hidden, -torch.inf)
