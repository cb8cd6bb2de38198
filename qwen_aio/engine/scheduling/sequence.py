"""One request's mutable state: its tokens, its slots, how far it is computed.

A sequence is a list of rows, one token each: the prompt, then whatever follows it (answer.py, decision.py). Rows see
all rows before them unless `tree` says otherwise. Knows no torch and no text. Owned by the engine thread.
"""

from __future__ import annotations

from dataclasses import dataclass

from qwen_aio.core import Timings, Truncation, Usage
from qwen_aio.engine.kv.radix_cache import Lease
from qwen_aio.engine.scheduling.label_tree import LabelTree


@dataclass(eq=False)
class Sequence:
    """The base of answers and decisions; by itself a beginning that is to be pinned."""

    request_id: str
    ids: list[int]  # one per row
    num_prompt: int
    num_rows: int  # rows it may come to have; so many slots are leased, so a running sequence never runs out
    arrived_s: float
    cuts: Truncation
    tree: LabelTree | None = None  # rows after the prompt that branch
    num_computed: int = 0  # rows whose keys and values are in their slots
    lease: Lease | None = None  # while it runs
    num_cached: int = 0  # set at admission: tokens of the prompt that were computed before
    admitted_s: float = 0.0  # set at admission

    @property
    def is_answer(self) -> bool:
        return False

    @property
    def is_decoding(self) -> bool:
        """The prompt is computed and one new token at a time follows."""
        return False

    @property
    def is_running(self) -> bool:
        """It has slots: it was admitted, and has neither ended nor failed."""
        return self.lease is not None

    @property
    def is_finished(self) -> bool:
        return self.num_computed == len(self.ids)

    @property
    def first_logit_row(self) -> int:
        """From this row on it is wanted what comes next."""
        return len(self.ids)

    @property
    def given_ids(self) -> list[int]:
        """What is known at the beginning and computed in one go; it may share its own beginning with others."""
        return self.ids[: self.num_prompt]

    @property
    def remembered_ids(self) -> list[int]:
        """The computed tokens that another prompt may begin with."""
        return self.ids[: self.num_computed]

    def admit(self, lease: Lease, *, now_s: float) -> None:
        """The sequence may run from now on; the shared part of its lease is computed already."""
        self.lease = lease
        self.admitted_s = now_s
        self.num_computed = lease.num_shared
        self.num_cached = min(lease.num_shared, self.num_prompt)

    def advance(self, end: int) -> None:
        """The rows before `end` are computed."""
        self.num_computed = end

    def positions(self, start: int, end: int) -> list[int]:
        """The place of each row in its text, for the rotary positions."""
        return list(range(start, end))

    def usage(self, *, completion_tokens: int) -> Usage:
        return Usage(self.num_prompt, self.num_cached, completion_tokens)

    def timings(self, *, first_s: float, last_s: float) -> Timings:
        """Wall time up to the first token or score, and from there to the last token."""
        return Timings(
            queue_ms=(self.admitted_s - self.arrived_s) * 1000,
            prefill_ms=(first_s - self.admitted_s) * 1000,
            decode_ms=(last_s - first_s) * 1000,
            total_ms=(last_s - self.arrived_s) * 1000,
        )
