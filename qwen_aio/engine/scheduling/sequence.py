"""One request's mutable state: its tokens, its slots, how far it is computed.

A sequence is a list of rows, one token each: the prompt, then what follows it (answer_sequence.py,
decision_sequence.py). A row attends to all rows before it, unless `tree` says otherwise. Knows no
torch and no text. Owned by the engine thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from qwen_aio.engine.kv.radix_cache import Lease
from qwen_aio.engine.scheduling.label_tree import LabelTree
from qwen_aio.result import Timings, Truncation, Usage


@dataclass(eq=False)
class Sequence:
    """The base of answers and decisions; by itself, a prefix to pin."""

    is_answer: ClassVar[bool] = False

    request_id: str
    ids: list[int]  # one per row
    num_prompt: int
    num_rows: int  # the most rows it can have; as many slots are leased, so it never runs out
    arrived_s: float
    truncation: Truncation
    tree: LabelTree | None = None  # branching rows after the prompt
    num_computed: int = 0  # rows whose keys and values are in their slots
    lease: Lease | None = None  # while it runs
    num_cached: int = 0  # set at admission: prompt tokens found in the cache
    admitted_s: float = 0.0  # set at admission

    @property
    def is_decoding(self) -> bool:
        """The prompt is computed; new tokens follow one by one."""
        return False

    @property
    def is_running(self) -> bool:
        """It is admitted, and has neither ended nor failed."""
        return self.lease is not None

    @property
    def is_finished(self) -> bool:
        return self.num_computed == len(self.ids)

    @property
    def first_logit_row(self) -> int:
        """The first row whose logits are needed."""
        return len(self.ids)

    @property
    def given_ids(self) -> list[int]:
        """The tokens known at arrival. Their prefix may be shared with other sequences."""
        return self.ids[: self.num_prompt]

    @property
    def cacheable_ids(self) -> list[int]:
        """The computed tokens that another prompt may share."""
        return self.ids[: self.num_computed]

    def admit(self, lease: Lease, *, now_s: float) -> None:
        """Start to run; the shared part of the lease is computed already."""
        self.lease = lease
        self.admitted_s = now_s
        self.num_computed = lease.num_shared
        self.num_cached = min(lease.num_shared, self.num_prompt)

    def advance(self, end: int) -> None:
        """Note that the rows before `end` are computed."""
        self.num_computed = end

    def positions(self, start: int, end: int) -> list[int]:
        """The rotary position of each row: its place in the text."""
        return list(range(start, end))

    def usage(self, *, completion_tokens: int) -> Usage:
        return Usage(self.num_prompt, self.num_cached, completion_tokens)

    def timings(self, *, first_s: float, last_s: float) -> Timings:
        """Wall times, by the clock of `arrived_s`."""
        return Timings(
            queue_ms=(self.admitted_s - self.arrived_s) * 1000,
            prefill_ms=(first_s - self.admitted_s) * 1000,
            decode_ms=(last_s - first_s) * 1000,
            total_ms=(last_s - self.arrived_s) * 1000,
        )
