"""Which sequences run, and which rows the next step computes: prompts in chunks, shortest remaining first.

A decision is short if half a step holds the rows it has to compute when it comes, else it is long (order.py).

The rows of a step:

1. Short decisions are computed whole, and first. So one that comes waits for the step under way at most.
2. Long decisions get three quarters of a step together, the one with the fewest rows left first. Beside short ones
   they are left out of a step, but never twice in a row while there is room.
3. A decision that came 30 s ago is overdue: it goes first, and a long one gets half a step beside short ones.
4. A decoding answer gets one row. Beside answers, every other step is of decisions alone, which halves what they wait
   for answers' rows; no answer is left out twice in a row. The prompts of answers get what decisions leave, at least a
   quarter. While an answer is decoded, they and long decisions get half a step together.

Admission:

5. It leases slots for all rows a sequence can come to have, so nothing that runs is thrown out again.
6. Decisions go before answers. A long decision is admitted when a step has rows for it; before, it holds nothing.
7. Long decisions and answers leave one place, and the slots of half a step, to short decisions.
8. The number of answers is bounded, and their slots (three quarters), so a decision waits for none of them to finish.
9. While slots are short, a sequence is not overtaken by others of its kind, and an overdue one by none at all.
10. A prefix that several share is computed once: the others wait for the first, but a short decision only for another
    short one. The prompt of a decoding answer is remembered as soon as another sequence can use it.

Knows no torch and no text. Owned by the engine thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from qwen_aio.engine.config import EngineLimits
from qwen_aio.engine.kv.radix_cache import RadixCache
from qwen_aio.engine.scheduling.order import Order, SequenceKind, num_left
from qwen_aio.engine.scheduling.sequence import Sequence
from qwen_aio.engine.scheduling.shared_prefix import shared_prefixes

# An answer that could start is overtaken by at most so many decisions; then it goes first.
PATIENCE = 64


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
        """It begins at the newest token of an answer; said of the span, so that it holds after the step, too."""
        return self.sequence.is_answer and self.start > self.sequence.first_logit_row

    @property
    def logit_rows(self) -> range:
        """The rows of the span after which it is wanted what comes next."""
        return range(max(self.start, self.sequence.first_logit_row), self.end)


class Scheduler:
    """Two waiting lines and the running sequences."""

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
        self._answers_wait = False  # the last step was one of decisions alone
        self._long_ones_wait = False  # the last step left long decisions out
        self._num_overtaken = 0  # decisions admitted since an answer that could start began to wait

    def __repr__(self) -> str:
        return (
            f"<Scheduler {len(self._waiting_decisions)} decisions and {len(self._waiting_answers)} answers waiting,"
            f" {len(self._running)} running>"
        )

    @property
    def max_rows(self) -> int:
        """The longest sequence that is sure to be admitted some day."""
        return min(self._limits.max_context, self._answer_slots)

    @property
    def max_decision_rows(self) -> int:
        """The longest decision that fits beside all that answers and pinned prompts may ever hold."""
        return self._cache.num_slots - self._answer_slots - self._cache.num_pinned

    @property
    def has_work(self) -> bool:
        return bool(self._running or self._waiting_decisions or self._waiting_answers)

    @property
    def num_running(self) -> int:
        return len(self._running)

    def add(self, sequence: Sequence) -> None:
        assert sequence.num_rows <= self.max_rows
        sequence.num_cached = self._cache.num_known(sequence.given_ids)
        self._line_of(sequence).append(sequence)

    def abort(self, request_id: str) -> None:
        """Forget a request wherever it is. An id that is not here has finished: nothing happens."""
        for line in (self._waiting_decisions, self._waiting_answers):
            for sequence in [waiting for waiting in line if waiting.request_id == request_id]:
                line.remove(sequence)
        for sequence in [running for running in self._running if running.request_id == request_id]:
            self.retire(sequence)

    def admit(self, *, now_s: float) -> None:
        """Let in whoever there is room for; `now_s` is of the clock that arrivals are noted by."""
        self._order.now_s = now_s
        held_up = set[SequenceKind]()
        for sequence in self._in_line():
            if len(self._running) == self._limits.max_running:
                return
            kind = self._order.kind(sequence)
            if kind in held_up:
                continue
            if not self._may_start(sequence, kind):
                held_up |= {kind} - {
                    SequenceKind.SHORT
                }  # a short one may wait for a prefix, which is nothing to the others
            elif not self._let_in(sequence, kind):
                if self._order.is_overdue(sequence):
                    return
                held_up.add(kind)

    def next_batch(self) -> list[Span]:
        """The rows of the next step; not empty while anything runs."""
        decisions = sorted((sequence for sequence in self._running if not sequence.is_answer), key=self._order.rank)
        answers = [sequence for sequence in self._running if sequence.is_answer]
        self._answers_wait = bool(decisions and answers) and not self._answers_wait
        if self._answers_wait:
            return self._of_decisions(decisions, budget=self._limits.max_batch_tokens, for_long=self._long_step)
        return self._mixed(decisions, answers)

    def retire(self, sequence: Sequence) -> None:
        """A running sequence ends; what it computed is remembered."""
        self._end(sequence, sequence.remembered_ids)

    def discard(self, sequence: Sequence) -> None:
        """A running sequence has failed; nothing it computed is remembered, as its books may be wrong."""
        self._end(sequence, [])

    def _end(self, sequence: Sequence, remembered_ids: list[int]) -> None:
        assert sequence.lease is not None
        self._running.remove(sequence)
        self._cache.release(sequence.lease, remembered_ids)
        sequence.lease = None

    def _mixed(self, decisions: list[Sequence], answers: list[Sequence]) -> list[Span]:
        """Rows of everybody, as far as the budget goes."""
        spans = [Span(s, s.num_computed, 1) for s in answers if s.is_decoding]
        begun = [s for s in answers if not s.is_decoding]
        room = self._limits.max_batch_tokens - len(spans)
        budget = room // (2 if spans else 1)  # of all but short decisions
        kept = min(budget // 4, sum(num_left(s) for s in begun))  # a flood of decisions leaves this to answers
        chunks = self._of_decisions(decisions, budget=room - kept, for_long=min(budget - kept, self._long_step))
        budget = max(budget - _num_rows(chunks), kept)
        return [*spans, *chunks, *_chunks(begun, budget=budget)]

    def _of_decisions(self, decisions: list[Sequence], *, budget: int, for_long: int) -> list[Span]:
        """Chunks of `decisions`, which are in order: at most `budget` rows, `for_long` of them of long ones."""
        short = [each for each in decisions if self._order.kind(each) is SequenceKind.SHORT]
        overdue = [each for each in decisions if each not in short and self._order.is_overdue(each)]
        others = [each for each in decisions if each not in short and each not in overdue]
        first = _chunks(overdue, budget=min(for_long, self._half_step) if short else for_long)
        chunks = [*first, *_chunks(short, budget=budget - _num_rows(first))]
        self._long_ones_wait = bool(short and others) and not overdue and not self._long_ones_wait
        if not self._long_ones_wait:
            chunks += _chunks(others, budget=min(for_long - _num_rows(first), budget - _num_rows(chunks)))
        return chunks

    def _line_of(self, sequence: Sequence) -> list[Sequence]:
        return self._waiting_answers if sequence.is_answer else self._waiting_decisions

    def _in_line(self) -> list[Sequence]:
        """All that wait: decisions in their order, then answers, the first of which is overtaken only so often."""
        decisions, answers = sorted(self._waiting_decisions, key=self._order.rank), self._waiting_answers
        turn = max(PATIENCE - self._num_overtaken, 0)
        return [*decisions[:turn], *answers[:1], *decisions[turn:], *answers[1:]]

    def _may_start(self, sequence: Sequence, kind: SequenceKind) -> bool:
        """May it be admitted if there are slots?"""
        if kind is not SequenceKind.SHORT and not self._leaves_a_place():
            return False
        if kind is SequenceKind.LONG and not self._has_rows_for(sequence):
            return False
        if kind is SequenceKind.ANSWER and not self._answer_can_start():
            return False
        self._remember_beginnings(sequence)
        return self._order.is_overdue(sequence) or not self._is_begun_by_another(sequence)

    def _let_in(self, sequence: Sequence, kind: SequenceKind) -> bool:
        """Admit it; False if slots are short."""
        leaves_room = kind is not SequenceKind.SHORT and self._running and not self._order.is_overdue(sequence)
        spare = self._half_step if leaves_room else 0
        lease = self._cache.lease(sequence.given_ids, num_rows=sequence.num_rows, spare=spare)
        if lease is None:
            return False
        self._line_of(sequence).remove(sequence)
        sequence.admit(lease, now_s=self._order.now_s)
        self._running.append(sequence)
        self._num_overtaken = 0 if sequence.is_answer else self._num_overtaken + self._answer_can_start()
        return True

    def _leaves_a_place(self) -> bool:
        """Would one more long decision or answer leave a place to a short decision?"""
        num_others = sum(self._order.kind(other) is not SequenceKind.SHORT for other in self._running)
        return num_others < max(self._limits.max_running - 1, 1)

    def _has_rows_for(self, decision: Sequence) -> bool:
        """Do the running long decisions that go before this one leave it any rows of a step?"""
        kind, rank, rank_of = self._order.kind, self._order.rank(decision), self._order.rank
        ahead = [other for other in self._running if kind(other) is SequenceKind.LONG and rank_of(other) <= rank]
        return sum(num_left(other) for other in ahead) < self._long_step

    def _remember_beginnings(self, sequence: Sequence) -> None:
        """What answers under way have computed of its beginning, from now on."""
        for other, _ in self._shared_prefixes(sequence):
            if other.is_decoding:
                self._remember_now(other)

    def _is_begun_by_another(self, sequence: Sequence) -> bool:
        """Its beginning is being computed, and to wait for that spares about as much as it costs.

        No decision waits for an answer's prompt, which gets only what decisions leave, and no short one for a long one.
        """
        kind = self._order.kind(sequence)
        return any(
            2 * num_spared >= num_left(other) and self._order.kind(other) <= kind
            for other, num_spared in self._shared_prefixes(sequence)
        )

    def _shared_prefixes(self, sequence: Sequence) -> Iterator[tuple[Sequence, int]]:
        num_cached = len(self._cache.match(sequence.given_ids[:-1]))
        return shared_prefixes(sequence.given_ids, self._running, num_cached=num_cached)

    def _remember_now(self, answer: Sequence) -> None:
        """What it has computed is remembered as if it had ended; it goes on behind that, in slots leased anew."""
        assert answer.lease is not None
        self._cache.release(answer.lease, answer.remembered_ids)
        answer.lease = self._cache.lease(answer.ids, num_rows=answer.num_rows)
        assert answer.lease is not None
        assert answer.lease.num_shared == answer.num_computed

    def _answer_can_start(self) -> bool:
        """No other answer stands in the way of the first one waiting."""
        if not self._waiting_answers:
            return False
        answers = [sequence for sequence in self._running if sequence.is_answer]
        num_rows = sum(sequence.num_rows for sequence in answers) + self._waiting_answers[0].num_rows
        most_rows = self._answer_slots - (self._half_step if answers else 0)
        return len(answers) < self._limits.max_answers and num_rows <= most_rows


def _chunks(sequences: Iterable[Sequence], *, budget: int) -> list[Span]:
    """As much of each as fits, first come first served."""
    spans = []
    for sequence in sequences:
        count = min(num_left(sequence), budget)
        if count > 0:
            spans.append(Span(sequence, sequence.num_computed, count))
            budget -= count
    return spans


def _num_rows(spans: Iterable[Span]) -> int:
    return sum(span.count for span in spans)
