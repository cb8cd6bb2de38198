"""Sequences that compute nothing, for tests of the scheduler."""

from __future__ import annotations

from qwen_aio.engine.config import EngineLimits
from qwen_aio.engine.kv.radix_cache import RadixCache
from qwen_aio.engine.scheduling.scheduler import Scheduler, Span
from qwen_aio.engine.scheduling.sequence import Sequence
from qwen_aio.result import Truncation

LIMITS = EngineLimits(max_context=64, max_running=4, max_answers=2, max_batch_tokens=16)


class FakeDecision(Sequence):
    def __init__(self, name: str, ids: list[int], *, arrived_s: float = 0.0) -> None:
        super().__init__(name, ids, len(ids), len(ids), arrived_s, Truncation())


class FakeAnswer(Sequence):
    """Generates `max_tokens` tokens, always the same one."""

    def __init__(self, name: str, ids: list[int], *, max_tokens: int) -> None:
        super().__init__(name, list(ids), len(ids), len(ids) + max_tokens, 0.0, Truncation())

    @property
    def is_answer(self) -> bool:
        return True

    @property
    def is_decoding(self) -> bool:
        return len(self.ids) > self.num_prompt

    @property
    def is_finished(self) -> bool:
        return len(self.ids) == self.num_rows


def compute(scheduler: Scheduler, *, now_s: float = 0.0) -> list[Span]:
    """What the engine does with a batch, without the numbers."""
    scheduler.admit(now_s=now_s)
    spans = scheduler.next_batch()
    for span in spans:
        sequence = span.sequence
        sequence.num_computed = span.end
        if sequence.is_answer and span.end == len(sequence.ids):
            sequence.ids.append(9)
        if sequence.is_finished:
            scheduler.retire(sequence)
    return spans


def names(spans: list[Span]) -> list[str]:
    return [span.sequence.request_id for span in spans]


def make(num_slots: int = 256, limits: EngineLimits = LIMITS) -> Scheduler:
    return Scheduler(RadixCache(num_slots), limits)


def rows(spans: list[Span]) -> list[tuple[str, int, int]]:
    return [(span.sequence.request_id, span.start, span.count) for span in spans]
