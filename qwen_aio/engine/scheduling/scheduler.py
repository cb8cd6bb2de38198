"""Admission of sequences, and the rows of the next step: chunked prefill, shortest remaining first.

A decision is short if its rows to compute at arrival fit into half a step, else long (order.py).

The rows of a step:

1. Short decisions come first and are computed whole, so one waits at most for the running step.
2. Long decisions share three quarters of a step, the shortest remaining first. Beside short ones
   they are left out of a step, but never twice in a row while there is room.
3. After 30 s a decision is overdue. It goes first; beside short ones, a long one gets half a step.
4. A decoding answer gets one row. Beside answers, every other step holds decisions alone, which
   halves the time they wait for answers' rows; no answer is left out twice in a row. The prompts of
   answers get what decisions leave, at least a quarter. While an answer decodes, they and long
   decisions share half a step.

Admission:

5. A sequence leases slots for all rows it can have, so no running sequence is ever preempted.
6. Decisions go before answers. A long decision is admitted when a step has rows for it; until then
   it holds no slots.
7. Long decisions and answers leave one place, and the slots of half a step, to short decisions.
8. The number of answers is bounded, and their slots are three quarters of all, so that no decision
   waits for an answer to finish.
9. While slots are short, no sequence is overtaken by its own kind, and an overdue one by none.
10. A prefix that several sequences share is computed once: the others wait for the first, a short
    decision only for another short one. The prompt of a decoding answer is cached as soon as
    another sequence can use it.

Knows no torch and no text. Owned by the engine thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from operator import attrgetter

from qwen_aio.engine.config import EngineLimits
from qwen_aio.engine.kv.radix_cache import Lease, RadixCache
from qwen_aio.engine.scheduling.order import Order, SequenceKind, num_remaining
from qwen_aio.engine.scheduling.sequence import Sequence

MAX_OVERTAKEN = 64  # decisions admitted before an answer that could start; then it goes first
MIN_SAVED = 32  # rows of a shared prefix from which waiting for another sequence pays


@dataclass(frozen=True, eq=False)
class Span:
    """The rows `start` .. `start + count` of a sequence, to be computed in one step."""

    sequence: Sequence
    start: int
    count: int

    @property
    def end(self) -> int:
        return self.start + self.count

    @property
    def is_decoding(self) -> bool:
        """It begins at the newest token of an answer. Stays true after the step."""
        return self.sequence.is_answer and self.start > self.sequence.first_logit_row

    @property
    def logit_rows(self) -> range:
        """The rows of the span whose logits are needed."""
        return range(max(self.start, self.sequence.first_logit_row), self.end)

    @property
    def lease(self) -> Lease:
        """The slots of its sequence, which runs."""
        assert self.sequence.lease is not None
        return self.sequence.lease

    @property
    def first_slot(self) -> int:
        """The slot of the sequence's first row: the same for sequences that share a prefix."""
        return self.lease.slots[0]


class Scheduler:
    """Two queues and the running sequences."""

    def __init__(self, cache: RadixCache, limits: EngineLimits) -> None:
        self._cache = cache
        self._limits = limits
        self._half_step = limits.max_batch_tokens // 2  # the most of a short decision
        self._long_step = limits.max_batch_tokens * 3 // 4  # the most of all long decisions in a step
        self._order = Order(short_rows=self._half_step)
        self._answer_slots = cache.num_slots - cache.num_slots // 4
        self._waiting_decisions: list[Sequence] = []
        self._waiting_answers: list[Sequence] = []
        self._running: list[Sequence] = []  # in order of admission
        self._answers_skipped = False  # the last step was one of decisions alone
        self._long_skipped = False  # the last step left long decisions out
        self._num_overtaken = 0  # decisions admitted while an answer could start

    def __repr__(self) -> str:
        waiting = f"{len(self._waiting_decisions)} decisions and {len(self._waiting_answers)} answers waiting"
        return f"<Scheduler {waiting}, {len(self._running)} running>"

    @property
    def max_rows(self) -> int:
        """The longest sequence that is sure to be admitted in the end."""
        return min(self._limits.max_context, self._answer_slots)

    @property
    def max_decision_rows(self) -> int:
        """The longest decision that fits beside all that answers and pinned prefixes can hold."""
        return self._cache.num_slots - self._answer_slots - self._cache.num_pinned

    @property
    def has_work(self) -> bool:
        return bool(self._running or self._waiting_decisions or self._waiting_answers)

    @property
    def num_running(self) -> int:
        return len(self._running)

    def add(self, sequence: Sequence) -> None:
        assert sequence.num_rows <= self.max_rows
        sequence.num_cached = len(self._cache.shared_prefix(sequence.given_ids))
        self._queue_of(sequence).append(sequence)

    def abort(self, request_id: str) -> None:
        """Remove a request, waiting or running. An unknown id has finished: nothing happens."""
        for queue in (self._waiting_decisions, self._waiting_answers):
            for sequence in [queued for queued in queue if queued.request_id == request_id]:
                queue.remove(sequence)
        for sequence in [running for running in self._running if running.request_id == request_id]:
            self.retire(sequence)

    def admit(self, *, now_s: float) -> None:
        """Admit the sequences that fit; `now_s` is by the clock of `arrived_s`."""
        self._order.now_s = now_s
        blocked = set[SequenceKind]()
        for sequence in self._queued():
            if len(self._running) == self._limits.max_running:
                return
            kind = self._order.kind(sequence)
            if kind in blocked:
                continue
            if not self._may_start(sequence, kind):
                blocked |= {kind} - {SequenceKind.SHORT}  # a short one waits for a prefix; others need not
            elif not self._start(sequence, kind):
                if self._order.is_overdue(sequence):
                    return
                blocked.add(kind)

    def next_batch(self) -> list[Span]:
        """The rows of the next step; not empty while anything runs."""
        decisions = sorted((sequence for sequence in self._running if not sequence.is_answer), key=self._order.rank)
        answers = [sequence for sequence in self._running if sequence.is_answer]
        self._answers_skipped = bool(decisions and answers) and not self._answers_skipped
        if self._answers_skipped:
            return self._decision_chunks(decisions, budget=self._limits.max_batch_tokens, for_long=self._long_step)
        return self._mixed_batch(decisions, answers)

    def retire(self, sequence: Sequence) -> None:
        """End a running sequence; its computed tokens are cached."""
        self._end(sequence, sequence.cacheable_ids)

    def discard(self, sequence: Sequence) -> None:
        """End a failed sequence; nothing is cached, as its state may be wrong."""
        self._end(sequence, [])

    def _end(self, sequence: Sequence, cacheable_ids: list[int]) -> None:
        assert sequence.lease is not None
        self._running.remove(sequence)
        self._cache.release(sequence.lease, cacheable_ids)
        sequence.lease = None

    def _mixed_batch(self, decisions: list[Sequence], answers: list[Sequence]) -> list[Span]:
        """Rows of decisions and answers, as far as the budget goes."""
        spans = [Span(s, s.num_computed, 1) for s in answers if s.is_decoding]
        prompts = [s for s in answers if not s.is_decoding]
        room = self._limits.max_batch_tokens - len(spans)
        budget = room // (2 if spans else 1)  # of all but short decisions
        kept = min(budget // 4, sum(num_remaining(s) for s in prompts))  # even under many decisions
        chunks = self._decision_chunks(decisions, budget=room - kept, for_long=min(budget - kept, self._long_step))
        budget = max(budget - _num_rows(chunks), kept)
        return [*spans, *chunks, *_chunks(prompts, budget=budget)]

    def _decision_chunks(self, decisions: list[Sequence], *, budget: int, for_long: int) -> list[Span]:
        """Chunks of sorted `decisions`: at most `budget` rows, `for_long` of them of long ones."""
        short = [each for each in decisions if self._order.kind(each) is SequenceKind.SHORT]
        overdue = [each for each in decisions if each not in short and self._order.is_overdue(each)]
        others = [each for each in decisions if each not in short and each not in overdue]
        first = _chunks(overdue, budget=min(for_long, self._half_step) if short else for_long)
        chunks = [*first, *_chunks(short, budget=budget - _num_rows(first))]
        self._long_skipped = bool(short and others) and not overdue and not self._long_skipped
        if not self._long_skipped:
            chunks += _chunks(others, budget=min(for_long - _num_rows(first), budget - _num_rows(chunks)))
        return chunks

    def _queue_of(self, sequence: Sequence) -> list[Sequence]:
        return self._waiting_answers if sequence.is_answer else self._waiting_decisions

    def _queued(self) -> list[Sequence]:
        """Decisions by rank, then answers; the first answer is overtaken MAX_OVERTAKEN times."""
        decisions, answers = sorted(self._waiting_decisions, key=self._order.rank), self._waiting_answers
        ahead = max(MAX_OVERTAKEN - self._num_overtaken, 0)
        return [*decisions[:ahead], *answers[:1], *decisions[ahead:], *answers[1:]]

    def _may_start(self, sequence: Sequence, kind: SequenceKind) -> bool:
        """True if the sequence may be admitted when there are slots."""
        if kind is not SequenceKind.SHORT and not self._leaves_place():
            return False
        if kind is SequenceKind.LONG and not self._has_rows_for(sequence):
            return False
        if kind is SequenceKind.ANSWER and not self._answer_can_start():
            return False
        self._insert_shared_prefixes(sequence)
        return self._order.is_overdue(sequence) or not self._awaits_prefix(sequence)

    def _start(self, sequence: Sequence, kind: SequenceKind) -> bool:
        """Admit the sequence; False if slots are short."""
        leaves_room = kind is not SequenceKind.SHORT and self._running and not self._order.is_overdue(sequence)
        spare = self._half_step if leaves_room else 0
        lease = self._cache.lease(sequence.given_ids, num_rows=sequence.num_rows, spare=spare)
        if lease is None:
            return False
        self._queue_of(sequence).remove(sequence)
        sequence.admit(lease, now_s=self._order.now_s)
        self._running.append(sequence)
        self._num_overtaken = 0 if sequence.is_answer else self._num_overtaken + self._answer_can_start()
        return True

    def _leaves_place(self) -> bool:
        """True if one more long decision or answer leaves a place to a short decision."""
        num_others = sum(self._order.kind(other) is not SequenceKind.SHORT for other in self._running)
        return num_others < max(self._limits.max_running - 1, 1)

    def _has_rows_for(self, decision: Sequence) -> bool:
        """True if the running long decisions that rank before this one leave it rows of a step."""
        kind, rank, rank_of = self._order.kind, self._order.rank(decision), self._order.rank
        ahead = [other for other in self._running if kind(other) is SequenceKind.LONG and rank_of(other) <= rank]
        return sum(num_remaining(other) for other in ahead) < self._long_step

    def _insert_shared_prefixes(self, sequence: Sequence) -> None:
        """Cache the prompts of decoding answers that share its prefix; they go on in new leases."""
        for other, _ in self._shared_prefixes(sequence):
            if other.is_decoding:
                assert other.lease is not None
                self._cache.release(other.lease, other.cacheable_ids)
                other.lease = self._cache.lease(other.ids, num_rows=other.num_rows)
                assert other.lease is not None
                assert other.lease.num_shared == other.num_computed

    def _awaits_prefix(self, sequence: Sequence) -> bool:
        """True if its prefix is being computed and waiting saves about as much as it costs.

        No decision waits for an answer's prompt, which gets only what decisions leave, and no short
        decision for a long one.
        """
        kind = self._order.kind(sequence)
        return any(
            2 * num_saved >= num_remaining(other) and self._order.kind(other) <= kind
            for other, num_saved in self._shared_prefixes(sequence)
        )

    def _shared_prefixes(self, sequence: Sequence) -> Iterator[tuple[Sequence, int]]:
        """Running sequences that share more than the cached rows, and the rows that this saves."""
        prompt_ids = sequence.given_ids[:-1]  # the last row is always computed
        num_cached = len(self._cache.match_prefix(prompt_ids))
        for other in self._running:
            num_saved = _num_common(prompt_ids, other.given_ids) - num_cached
            if num_saved >= MIN_SAVED:
                yield other, num_saved

    def _answer_can_start(self) -> bool:
        """True if the running answers leave room for the first one waiting."""
        if not self._waiting_answers:
            return False
        answers = [sequence for sequence in self._running if sequence.is_answer]
        num_rows = sum(sequence.num_rows for sequence in answers) + self._waiting_answers[0].num_rows
        most_rows = self._answer_slots - (self._half_step if answers else 0)
        return len(answers) < self._limits.max_answers and num_rows <= most_rows


def in_batch_order(spans: Iterable[Span]) -> list[Span]:
    """The spans as a forward pass takes them: those that share a prefix side by side."""
    return sorted(spans, key=attrgetter("first_slot"))


def _chunks(sequences: Iterable[Sequence], *, budget: int) -> list[Span]:
    """As many rows of each as fit, in the given order."""
    spans = []
    for sequence in sequences:
        count = min(num_remaining(sequence), budget)
        if count > 0:
            spans.append(Span(sequence, sequence.num_computed, count))
            budget -= count
    return spans


def _num_common(ids: list[int], others: list[int]) -> int:
    """The length of the common prefix."""
    pairs = enumerate(zip(ids, others, strict=False))
    return next((row for row, (token, other) in pairs if token != other), min(len(ids), len(others)))


def _num_rows(spans: Iterable[Span]) -> int:
    return sum(span.count for span in spans)
