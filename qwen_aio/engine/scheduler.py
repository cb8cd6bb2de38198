"""Who runs, and which rows the next step computes.

A step takes one row of each decoding answer and, within a budget, chunks of the prompts that are not computed yet:
decisions first, since a person waits for their whole outcome. Beside answers, every other step is of decisions alone:
one that comes waits for the step under way and then for its own rows only, and no answer is left out twice in a row.
The budget is half as large while anybody reads along. Admission leases all
slots a sequence can come to need, so nothing running is ever thrown out again. What answers may hold together is
bounded (their number, and three quarters of the slots), so a decision never waits for one of them to finish. A
beginning that many share is computed once: while one computes it the others wait, and a running answer's prompt is
remembered as soon as somebody can use it.
Knows no torch and no text. Owned by the engine thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from qwen_aio.engine.config import EngineLimits
from qwen_aio.engine.kv_cache import KvCache
from qwen_aio.engine.sequence import Sequence

# An answer that could start is overtaken by at most so many decisions; then it goes first.
PATIENCE = 64

# Rows of a common beginning that are worth waiting for until another sequence has computed them.
MIN_SPARED = 32


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

    def __init__(self, cache: KvCache, limits: EngineLimits) -> None:
        self._cache = cache
        self._limits = limits
        self._answer_slots = cache.num_slots - cache.num_slots // 4
        self._waiting_decisions: deque[Sequence] = deque()
        self._waiting_answers: deque[Sequence] = deque()
        self._running: list[Sequence] = []  # in order of admission
        self._answers_wait = False  # the last step was one of decisions alone
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
        (self._waiting_answers if sequence.is_answer else self._waiting_decisions).append(sequence)

    def abort(self, request_id: str) -> None:
        """Forget a request wherever it is. An id that is not here has finished: nothing happens."""
        for line in (self._waiting_decisions, self._waiting_answers):
            for sequence in [waiting for waiting in line if waiting.request_id == request_id]:
                line.remove(sequence)
        for sequence in [running for running in self._running if running.request_id == request_id]:
            self.retire(sequence)

    def admit(self, *, now_s: float) -> None:
        """Let in whoever there is room for. The first in line is not passed by when memory is short."""
        while len(self._running) < self._limits.max_running:
            line = self._next_line()
            if not line:
                return
            self._remember_beginnings(line[0])
            if self._is_begun_by_another(line[0]):
                return
            lease = self._cache.lease(line[0].given_ids, num_rows=line[0].num_rows)
            if lease is None:
                return
            sequence = line.popleft()
            sequence.admit(lease, now_s=now_s)
            self._running.append(sequence)
            self._num_overtaken = 0 if sequence.is_answer else self._num_overtaken + self._answer_can_start()

    def next_batch(self) -> list[Span]:
        """The rows of the next step; not empty while anything runs."""
        decisions = [sequence for sequence in self._running if not sequence.is_answer]
        answers = [sequence for sequence in self._running if sequence.is_answer]
        self._answers_wait = bool(decisions and answers) and not self._answers_wait
        if self._answers_wait:
            return _chunks(decisions, budget=self._limits.max_batch_tokens)
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
        budget = (self._limits.max_batch_tokens - len(spans)) // (2 if spans else 1)
        kept = min(budget // 4, sum(_num_left(s) for s in begun))  # a flood of decisions leaves this to answers
        chunks = _chunks(decisions, budget=budget - kept)
        budget -= sum(span.count for span in chunks)
        return [*spans, *chunks, *_chunks(begun, budget=budget)]

    def _remember_beginnings(self, sequence: Sequence) -> None:
        """What answers under way have computed of its beginning, from now on."""
        for other, _ in self._kin(sequence):
            if other.is_decoding:
                self._remember_now(other)

    def _is_begun_by_another(self, sequence: Sequence) -> bool:
        """Its beginning is being computed, and to wait for that spares about as much as it costs.

        No decision waits for an answer's prompt, which gets only what decisions leave.
        """
        return any(
            2 * num_spared >= _num_left(other) and (sequence.is_answer or not other.is_answer)
            for other, num_spared in self._kin(sequence)
        )

    def _kin(self, sequence: Sequence) -> Iterator[tuple[Sequence, int]]:
        """Running ones with a beginning in common that is not remembered, and how many rows that could spare."""
        given_ids = sequence.given_ids[:-1]  # the last one is computed anyway
        num_known = len(self._cache.match(given_ids))
        for other in self._running:
            num_spared = _num_common(given_ids, other.given_ids) - num_known
            if num_spared >= MIN_SPARED:
                yield other, num_spared

    def _remember_now(self, answer: Sequence) -> None:
        """What it has computed is remembered as if it had ended; it goes on behind that, in slots leased anew."""
        assert answer.lease is not None
        self._cache.release(answer.lease, answer.remembered_ids)
        answer.lease = self._cache.lease(answer.ids, num_rows=answer.num_rows)
        assert answer.lease is not None
        assert answer.lease.num_shared == answer.num_computed

    def _next_line(self) -> deque[Sequence] | None:
        if self._answer_can_start() and (not self._waiting_decisions or self._num_overtaken >= PATIENCE):
            return self._waiting_answers
        return self._waiting_decisions or None

    def _answer_can_start(self) -> bool:
        """No other answer stands in the way of the first one waiting."""
        if not self._waiting_answers:
            return False
        answers = [sequence for sequence in self._running if sequence.is_answer]
        num_rows = sum(sequence.num_rows for sequence in answers) + self._waiting_answers[0].num_rows
        return len(answers) < self._limits.max_answers and num_rows <= self._answer_slots


def _num_common(ids: list[int], others: list[int]) -> int:
    """The length of the beginning that both have."""
    return next(
        (row for row, (token, other) in enumerate(zip(ids, others, strict=False)) if token != other),
        min(len(ids), len(others)),
    )


def _num_left(sequence: Sequence) -> int:
    return len(sequence.ids) - sequence.num_computed


def _chunks(sequences: Iterable[Sequence], *, budget: int) -> list[Span]:
    """As much of each as fits, first come first served."""
    spans = []
    for sequence in sequences:
        count = min(_num_left(sequence), budget)
        if count > 0:
            spans.append(Span(sequence, sequence.num_computed, count))
            budget -= count
    return spans
