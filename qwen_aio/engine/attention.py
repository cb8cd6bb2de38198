"""Attention of many sequences over one memory of keys and values.

A step's rows are cut into groups: the decoding rows of sequences of similar length form one (padded to the longest),
each chunk of a prompt forms one of its own. A group is one gather and one attention operator per layer. What a group
sees is worked out once per step and used in every layer. Knows no weights.
"""

from __future__ import annotations

from collections.abc import Sequence as Series
from dataclasses import dataclass
from itertools import groupby

import numpy
import torch
from torch import Tensor
from torch.nn import functional

from qwen_aio.engine.config import ModelConfig
from qwen_aio.engine.scheduler import Span


class KvMemory:
    """Keys and values of every slot in every layer: (layers, slots, 2 * kv_heads, head_dim), keys first."""

    def __init__(self, config: ModelConfig, num_slots: int) -> None:
        shape = (config.num_layers, num_slots, 2 * config.num_kv_heads, config.head_dim)
        # Zeros, as a masked row of garbage could hold a NaN; numpy's, as those take no memory until they are used.
        self.layers = torch.from_numpy(numpy.zeros(shape, numpy.float32)).unbind(0)

    @staticmethod
    def num_slots(config: ModelConfig, *, kv_mb: int) -> int:
        """How many slots `kv_mb` mebibytes hold."""
        return kv_mb * 2**20 // (config.num_layers * 2 * config.num_kv_heads * config.head_dim * 4)


@dataclass(frozen=True, eq=False)
class Group:
    """`num_sequences` equal numbers of consecutive rows of a step, with what they see."""

    rows: slice
    num_sequences: int
    slots: Tensor  # (num_sequences * length,) of all rows that any of them sees
    mask: Tensor  # (num_sequences, 1, query heads per key head * rows each, length): 0 or -inf


@dataclass(frozen=True, eq=False)
class Rows:
    """A step as the model takes it."""

    ids: Tensor  # (n,)
    positions: Tensor  # (n,)
    slots: Tensor  # (n,) where their keys and values go
    groups: tuple[Group, ...]
    wanted: Tensor  # rows whose outcome is needed


def ordered(spans: Series[Span]) -> list[Span]:
    """The order in which `gather_rows` wants the spans: decoding rows of similar length side by side."""
    return sorted(spans, key=_group_key)


def gather_rows(spans: Series[Span], *, heads_per_kv_head: int) -> Rows:
    """Tensors for `spans`, which are in `ordered` order."""
    ids: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    wanted: list[int] = []
    for span in spans:
        assert span.sequence.lease is not None
        wanted.extend(row - span.start + len(ids) for row in span.logit_rows)
        ids.extend(span.sequence.ids[span.start : span.end])
        positions.extend(span.sequence.positions(span.start, span.end))
        slots.extend(span.sequence.lease.slots[span.start : span.end])
    return Rows(
        ids=torch.tensor(ids),
        positions=torch.tensor(positions),
        slots=torch.tensor(slots),
        groups=_groups(spans, heads_per_kv_head),
        wanted=torch.tensor(wanted, dtype=torch.long),  # of no rows, too
    )


def attend(qkv: Tensor, rows: Rows, memory: Tensor, *, num_kv_heads: int) -> Tensor:
    """Write the new keys and values, then let every row look: (n, heads + 2 kv heads, d) -> (n, heads * d).

    Query heads that share a key head are laid one after another as if they were rows, so nothing is repeated.
    """
    n, num_all, dim = qkv.shape
    num_heads = num_all - 2 * num_kv_heads
    memory.index_copy_(0, rows.slots, qkv[:, num_heads:])
    seen = torch.empty(n, num_heads * dim)
    for group in rows.groups:
        s, g = group.num_sequences, num_heads // num_kv_heads
        keys_values = memory.index_select(0, group.slots).view(s, -1, 2 * num_kv_heads, dim).transpose(1, 2)
        queries = qkv[group.rows, :num_heads].reshape(s, -1, num_kv_heads, g, dim).permute(0, 2, 3, 1, 4)
        out = functional.scaled_dot_product_attention(
            queries.reshape(s, num_kv_heads, -1, dim),  # (s, kv heads, g * rows, d)
            keys_values[:, :num_kv_heads],
            keys_values[:, num_kv_heads:],
            attn_mask=group.mask,
        )
        back = out.view(s, num_kv_heads, g, -1, dim).permute(0, 3, 1, 2, 4)  # (s, rows, kv heads, g, d)
        seen[group.rows] = back.reshape(-1, num_heads * dim)
    return seen


def _group_key(span: Span) -> int:
    """Spans with the same key share a group: a decoding row with those less than twice as long; 0 is alone."""
    return span.end.bit_length() if span.sequence.is_decoding else 0


def _groups(spans: Series[Span], heads_per_kv_head: int) -> tuple[Group, ...]:
    groups = []
    start = 0
    for key, similar in groupby(spans, key=_group_key):
        members = list(similar)
        for part in [members] if key else [[span] for span in members]:
            num_rows = sum(span.count for span in part)
            groups.append(_group(part, slice(start, start + num_rows), heads_per_kv_head))
            start += num_rows
    return tuple(groups)


def _group(spans: list[Span], rows: slice, heads_per_kv_head: int) -> Group:
    """Spans of one count each."""
    length = max(span.end for span in spans)
    slots: list[int] = []
    for span in spans:
        assert span.sequence.lease is not None
        own = span.sequence.lease.slots[: span.end]
        slots.extend(own + own[:1] * (length - span.end))  # padding is never seen
    visible = torch.stack([_visible(span, length) for span in spans])
    mask = torch.zeros(visible.shape).masked_fill_(~visible, -torch.inf)
    return Group(rows, len(spans), torch.tensor(slots), mask.repeat(1, heads_per_kv_head, 1).unsqueeze(1))


def _visible(span: Span, length: int) -> Tensor:
    """(count, length): a row sees those before it and itself; on a branch, the prompt and its own branch."""
    visible = torch.arange(length) <= torch.arange(span.start, span.end).unsqueeze(1)
    tree, num_prompt = span.sequence.tree, span.sequence.num_prompt
    if tree is None:
        return visible
    for row in range(max(span.start, num_prompt), span.end):
        visible[row - span.start, num_prompt:] = False
        visible[row - span.start, [num_prompt + at for at in tree.ancestors(row - num_prompt)]] = True
    return visible
