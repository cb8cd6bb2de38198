"""Admission and batches, with sequences that compute nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from qwen_aio.core import Truncation
from qwen_aio.engine.config import EngineLimits
from qwen_aio.engine.kv.radix_cache import RadixCache
from qwen_aio.engine.scheduling.order import OVERDUE_AFTER_S
from qwen_aio.engine.scheduling.scheduler import MAX_OVERTAKEN, MIN_SAVED, Scheduler, Span
from qwen_aio.engine.scheduling.sequence import Sequence

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


def test_a_step_takes_one_row_of_each_answer_and_chunks_of_prompts() -> None:
    scheduler = make()
    scheduler.add(FakeAnswer("a", [1, 2, 3], max_tokens=9))
    assert rows(compute(scheduler)) == [("a", 0, 3)]
    scheduler.add(FakeAnswer("b", list(range(10)), max_tokens=5))
    assert rows(compute(scheduler)) == [("a", 3, 1), ("b", 0, 7)]  # half of 15: an answer decodes
    assert rows(compute(scheduler)) == [("a", 4, 1), ("b", 7, 3)]
    assert rows(compute(scheduler)) == [("a", 5, 1), ("b", 10, 1)]


def test_beside_answers_every_other_step_is_of_decisions_alone() -> None:
    scheduler = make()
    scheduler.add(FakeAnswer("a", [1, 2, 3], max_tokens=9))
    compute(scheduler)
    scheduler.add(FakeDecision("d", list(range(60))))
    assert rows(compute(scheduler)) == [("d", 0, 12)]
    assert rows(compute(scheduler)) == [("a", 3, 1), ("d", 12, 7)]
    assert rows(compute(scheduler)) == [("d", 19, 12)]
    scheduler.add(FakeDecision("e", list(range(4))))
    assert rows(compute(scheduler)) == [("a", 4, 1), ("e", 0, 4)]
    scheduler.add(FakeDecision("f", [7] * 4))
    assert rows(compute(scheduler)) == [("f", 0, 4), ("d", 31, 12)]  # which the last step left out
    assert rows(compute(scheduler)) == [("a", 5, 1), ("d", 43, 7)]


def test_decisions_are_computed_before_answers_that_came_earlier() -> None:
    scheduler = make()
    scheduler.add(FakeAnswer("a", [1] * 30, max_tokens=5))
    scheduler.add(FakeDecision("d", [2] * 8))
    assert rows(compute(scheduler)) == [("d", 0, 8)]
    for n in range(3):
        scheduler.add(FakeDecision(f"e{n}", [3 + n] * 5))
    assert rows(compute(scheduler)) == [("e0", 0, 5), ("e1", 0, 5), ("e2", 0, 2), ("a", 0, 4)]  # a quarter for answers


def test_answers_leave_places_for_decisions() -> None:
    scheduler = make()
    for n in range(6):
        scheduler.add(FakeAnswer(f"a{n}", [n] * 4, max_tokens=20))
    compute(scheduler)
    assert scheduler.num_running == LIMITS.max_answers
    scheduler.add(FakeDecision("d", [1, 2, 3]))
    assert "d" in names(compute(scheduler))


def test_answers_leave_memory_for_decisions() -> None:
    scheduler = make(num_slots=80)  # 60 for answers
    scheduler.add(FakeAnswer("a0", [1] * 10, max_tokens=40))
    scheduler.add(FakeAnswer("a1", [2] * 10, max_tokens=10))
    compute(scheduler)
    assert scheduler.num_running == 1  # 50 + 20 would be too much
    scheduler.add(FakeDecision("d", [3] * 20))
    assert "d" in names(compute(scheduler))


def test_short_decisions_may_use_every_place() -> None:
    scheduler = make()
    for n in range(6):
        scheduler.add(FakeDecision(f"d{n}", [n] * 8))
    scheduler.admit(now_s=0.0)
    assert scheduler.num_running == LIMITS.max_running


def test_a_short_decision_waits_for_one_step_only_after_ten_long_ones() -> None:
    scheduler = make()
    for n in range(10):
        scheduler.add(FakeDecision(f"long{n}", [n] * 60))
    for n in range(50):
        assert sum(span.count for span in compute(scheduler)) == 12  # three quarters of a step
        scheduler.add(FakeDecision(f"short{n}", [100 + n] * 8))
        assert rows(compute(scheduler)) == [(f"short{n}", 0, 8)]


def test_many_short_decisions_at_once_find_places_after_ten_long_ones() -> None:
    scheduler = make()
    for n in range(10):
        scheduler.add(FakeDecision(f"long{n}", [n] * 60))
    compute(scheduler)
    for n in range(3):
        scheduler.add(FakeDecision(f"short{n}", [n] * 5))
    assert names(compute(scheduler)) == ["short0", "short1", "short2"]


@pytest.mark.parametrize("is_decoding", [True, False])
def test_a_short_decision_waits_for_one_step_only_after_answers_and_long_ones(is_decoding: bool) -> None:
    scheduler = make()
    for n in range(LIMITS.max_answers + 1):
        scheduler.add(FakeAnswer(f"a{n}", [n] * (4 if is_decoding else 40), max_tokens=20))
    for n in range(10):
        scheduler.add(FakeDecision(f"long{n}", [n] * (50 - 2 * n)))  # each one may go before those that run
        compute(scheduler)
    for n in range(12):
        assert scheduler.num_running < LIMITS.max_running
        scheduler.add(FakeDecision(f"short{n}", [100 + n] * 8))
        spans = {span.sequence.request_id: span.count for span in compute(scheduler)}
        assert spans[f"short{n}"] == 8
        assert not any(name.startswith("long") for name in spans)
        compute(scheduler)


def test_a_short_decision_finds_memory_beside_answers_and_a_long_one() -> None:
    scheduler = make(num_slots=80)  # 60 for answers
    scheduler.add(FakeAnswer("a0", [1] * 10, max_tokens=40))
    scheduler.add(FakeAnswer("a1", [2] * 4, max_tokens=4))
    compute(scheduler)
    assert scheduler.num_running == 1  # together they would leave less than eight beside the longest decision
    scheduler.add(FakeDecision("long", [3] * scheduler.max_decision_rows))
    assert names(compute(scheduler)) == ["long"]
    scheduler.add(FakeDecision("short", [4] * 8))
    assert names(compute(scheduler)) == ["a0", "short"]


def test_the_shortest_remaining_long_decision_goes_first() -> None:
    scheduler = make()
    scheduler.add(FakeDecision("long", [1] * 40))
    compute(scheduler)
    scheduler.add(FakeDecision("longer", [2] * 50))
    scheduler.add(FakeDecision("shorter", [3] * 20))
    order = [name for _ in range(9) for name in names(compute(scheduler))]
    assert order == [*["shorter", "shorter"], "long", "long", "long", *["longer"] * 5]


def test_beside_short_ones_in_every_step_a_long_decision_goes_on_in_every_other() -> None:
    scheduler = make()
    scheduler.add(FakeDecision("long", [1] * 60))
    compute(scheduler)
    steps = []
    for n in range(8):
        scheduler.add(FakeDecision(f"short{n}", [100 + n] * 5))
        steps.append(names(compute(scheduler)))
    assert [step[0] for step in steps] == [f"short{n}" for n in range(8)]
    assert [step[1:] for step in steps] == [[], ["long"]] * 4


def test_an_overdue_long_decision_goes_first_and_short_ones_beside_it() -> None:
    scheduler = make()
    scheduler.add(FakeDecision("old", [1] * 40, arrived_s=1.0))
    now_s = 1.0 + OVERDUE_AFTER_S
    scheduler.add(FakeDecision("new", [2] * 20, arrived_s=now_s))
    scheduler.add(FakeDecision("short", [3] * 5, arrived_s=now_s))
    assert rows(compute(scheduler, now_s=now_s - 0.1)) == [("short", 0, 5)]
    assert rows(compute(scheduler, now_s=now_s - 0.1)) == [("new", 0, 12)]
    scheduler.add(FakeDecision("short", [4] * 5, arrived_s=now_s))
    assert rows(compute(scheduler, now_s=now_s)) == [("old", 0, 8), ("short", 0, 5), ("new", 12, 3)]
    assert rows(compute(scheduler, now_s=now_s)) == [("old", 8, 12)]


def test_what_an_overdue_long_decision_leaves_of_its_share_goes_to_the_next() -> None:
    scheduler = make()
    scheduler.add(FakeDecision("old", [1] * 18, arrived_s=1.0))
    scheduler.add(FakeDecision("new", [2] * 20, arrived_s=9.0))
    steps = [rows(compute(scheduler, now_s=1.0 + OVERDUE_AFTER_S)) for _ in range(3)]
    assert steps == [[("old", 0, 12)], [("old", 12, 6), ("new", 0, 6)], [("new", 6, 12)]]


@given(
    num_slots=st.integers(60, 240),
    budget=st.integers(8, 40),
    short_rows=st.integers(1, 20),
    long_rows=st.integers(21, 40),
)
@settings(deadline=None)
def test_nothing_starves_under_more_short_decisions_than_can_be_computed(
    num_slots: int, budget: int, short_rows: int, long_rows: int
) -> None:
    """One step a second; overdue ones end after as many steps as their rows and earlier ones take."""
    scheduler = make(num_slots, replace(LIMITS, max_batch_tokens=budget))
    waiting = [FakeDecision("long", [8] * long_rows), FakeDecision("longer", [9] * (long_rows + 5))]
    waiting.append(FakeAnswer("answer", [7] * 12, max_tokens=4))
    for sequence in waiting:
        scheduler.add(sequence)
    for now in range(round(OVERDUE_AFTER_S) + 2 * MAX_OVERTAKEN + 4 * (long_rows + 5)):
        for n in range(budget // short_rows + 1):
            scheduler.add(FakeDecision(f"{now}-{n}", [n % 7] * short_rows, arrived_s=float(now)))
        compute(scheduler, now_s=float(now))
        if all(sequence.is_finished for sequence in waiting):
            break
    assert all(sequence.is_finished for sequence in waiting)


def test_a_flood_of_decisions_does_not_starve_an_answer() -> None:
    scheduler = make()
    scheduler.add(FakeAnswer("a", [5] * 12, max_tokens=2))
    ran = set[str]()
    for n in range(MAX_OVERTAKEN + 40):
        scheduler.add(FakeDecision(f"d{n}", [n % 7] * 16))  # as fast as they are computed
        scheduler.add(FakeDecision(f"e{n}", [n % 5] * 16))
        ran |= set(names(compute(scheduler)))
    assert "a" in ran


def test_the_first_long_one_is_not_overtaken_by_longer_ones_when_memory_is_short() -> None:
    scheduler = make(num_slots=80)
    scheduler.add(FakeAnswer("a", [1] * 6, max_tokens=24))
    compute(scheduler)
    scheduler.add(FakeDecision("waits", [2] * 44))
    scheduler.add(FakeDecision("small", [3] * 5))
    scheduler.add(FakeDecision("longer", [4] * 45))
    assert names(compute(scheduler)) == ["small"]
    order = [name for _ in range(60) for name in names(compute(scheduler))]
    assert order.index("waits") < order.index("longer")


def test_an_overdue_decision_is_overtaken_by_none_when_memory_is_short() -> None:
    scheduler = make(num_slots=80)
    scheduler.add(FakeAnswer("a", [1] * 6, max_tokens=34))
    compute(scheduler)
    scheduler.add(FakeDecision("waits", [2] * 44))
    assert names(compute(scheduler, now_s=OVERDUE_AFTER_S - 1)) == ["a"]
    scheduler.add(FakeDecision("small", [3] * 5, arrived_s=OVERDUE_AFTER_S))
    assert names(compute(scheduler, now_s=OVERDUE_AFTER_S)) == ["a"]
    order = [name for _ in range(60) for name in names(compute(scheduler, now_s=OVERDUE_AFTER_S))]
    assert order.index("a") < order.index("waits") <= order.index("small")


def test_a_long_shared_prefix_is_computed_once() -> None:
    scheduler = make()
    beginning = [7] * 40
    for n in range(3):
        scheduler.add(FakeDecision(f"d{n}", [*beginning, n, n]))
    steps = [rows(compute(scheduler)) for _ in range(5)]
    assert steps[:4] == [[("d0", 0, 12)], [("d0", 12, 12)], [("d0", 24, 12)], [("d0", 36, 6)]]
    assert steps[4:] == [[("d1", 40, 2), ("d2", 40, 2)]]


def test_a_short_decision_waits_for_the_prefix_of_a_short_one_but_not_of_a_long_one() -> None:
    scheduler = make(limits=replace(LIMITS, max_context=200, max_batch_tokens=80))
    scheduler.add(FakeDecision("long", [*[7] * 36, *range(100, 150)]))
    assert rows(compute(scheduler)) == [("long", 0, 60)]
    scheduler.add(FakeDecision("d", [*[7] * 36, 1, 2]))
    scheduler.add(FakeDecision("e", [*[7] * 36, 3, 4]))
    scheduler.add(FakeDecision("f", [5] * 36))
    assert rows(compute(scheduler)) == [("f", 0, 36), ("d", 0, 38)]
    assert rows(compute(scheduler)) == [("e", 36, 2), ("long", 60, 26)]


def test_for_a_short_shared_prefix_nothing_waits() -> None:
    scheduler = make(limits=replace(LIMITS, max_batch_tokens=80))
    for n in range(3):
        scheduler.add(FakeDecision(f"d{n}", [*[7] * (MIN_SAVED - 1), n, n]))
    scheduler.admit(now_s=0.0)
    assert scheduler.num_running == 3


def test_nothing_waits_for_a_sequence_with_far_more_to_compute() -> None:
    limits = EngineLimits(max_context=200, max_running=4, max_answers=2, max_batch_tokens=32)
    scheduler = make(num_slots=400, limits=limits)
    scheduler.add(FakeAnswer("a", [*[7] * 40, *range(100, 200)], max_tokens=5))
    compute(scheduler)
    scheduler.add(FakeDecision("d", [*[7] * 40, 1, 2]))
    assert "d" in names(compute(scheduler))


def test_no_decision_waits_for_an_answer_s_prompt() -> None:
    scheduler = make()
    scheduler.add(FakeAnswer("a", [7] * 40, max_tokens=5))
    compute(scheduler)
    scheduler.add(FakeDecision("d", [*[7] * 38, 1, 2]))
    scheduler.add(FakeDecision("short", [1, 2]))
    assert names(compute(scheduler)) == ["short"]
    assert "d" in names(compute(scheduler))


def test_an_answer_s_prompt_is_shared_while_it_goes_on() -> None:
    scheduler = make()
    prompt = [*range(40)]
    scheduler.add(FakeAnswer("a", prompt, max_tokens=20))
    scheduler.add(FakeAnswer("b", prompt, max_tokens=20))
    steps = [compute(scheduler) for _ in range(5)]
    assert [names(spans) for spans in steps] == [["a"]] * 3 + [["a", "b"]] * 2
    assert [(span.start, span.count) for span in steps[3]] == [(40, 1), (39, 1)]
    assert [(span.start, span.count) for span in steps[4]] == [(41, 1), (40, 1)]
    for name in ("a", "b"):
        scheduler.abort(name)
    scheduler.add(FakeDecision("d", [*prompt, 9, 9, 9, 9]))
    assert [(span.start, span.count) for span in compute(scheduler)] == [(42, 2)]  # what came after it is kept, too


def test_abort_works_on_the_waiting_and_on_the_running() -> None:
    scheduler = make()
    for n in range(6):
        scheduler.add(FakeAnswer(f"a{n}", [n] * 4, max_tokens=20))
    compute(scheduler)
    for n in range(6):
        scheduler.abort(f"a{n}")
    scheduler.abort("nobody")
    assert not scheduler.has_work


def test_its_repr_names_what_waits() -> None:
    scheduler = make()
    scheduler.add(FakeDecision("d", [1]))
    scheduler.add(FakeAnswer("a", [1], max_tokens=3))
    assert repr(scheduler) == "<Scheduler 1 decisions and 1 answers waiting, 0 running>"


class SchedulerMachine(RuleBasedStateMachine):
    """Arrivals, aborts and steps in any order, with little memory."""

    @initialize(num_slots=st.integers(24, 240), budget=st.integers(8, 40))
    def start(self, num_slots: int, budget: int) -> None:
        self.cache = RadixCache(num_slots)
        self.limits = EngineLimits(max_context=64, max_running=4, max_answers=2, max_batch_tokens=budget)
        self.scheduler = Scheduler(self.cache, self.limits)
        self.left_out: set[str] = set()  # answers that the last step did nothing for
        self.open: dict[str, Sequence] = {}
        self.count = 0
        self.now_s = 0.0

    @rule(
        common=st.sampled_from([0, MIN_SAVED, MIN_SAVED + 8]),
        ids=st.lists(st.integers(0, 2), min_size=1, max_size=20),
        more=st.integers(0, 20),
    )
    def arrive(self, common: int, ids: list[int], more: int) -> None:
        self.count += 1
        self.add([self.count // 4] * common + ids, more=more)  # a few arrivals in a row begin alike

    @rule(nums_rows=st.lists(st.integers(1, 4), min_size=1, max_size=3))
    def arrive_short_before_a_step(self, nums_rows: list[int]) -> None:
        for num_rows in nums_rows:
            self.count += 1
            self.add([self.count] * num_rows, more=0)
        self.step()

    @rule(num_rows=st.integers(20, 60))
    def arrive_long(self, num_rows: int) -> None:
        self.count += 1
        self.add([self.count] * num_rows, more=0)

    def add(self, ids: list[int], *, more: int) -> None:
        name = str(self.count)
        sequence = FakeAnswer(name, ids, max_tokens=more) if more else FakeDecision(name, ids, arrived_s=self.now_s)
        if sequence.num_rows <= self.scheduler.max_rows:
            self.scheduler.add(sequence)
            self.open[name] = sequence

    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        if self.open:
            name = data.draw(st.sampled_from(sorted(self.open)))
            self.scheduler.abort(name)
            assert self.open.pop(name).lease is None

    @rule()
    def step(self) -> None:
        before = {name: sequence.num_computed for name, sequence in self.open.items()}
        decoding = {name for name, sequence in self.open.items() if sequence.lease and sequence.is_decoding}
        short = self.expected()
        spans = compute(self.scheduler, now_s=self.now_s)
        assert short <= {span.sequence.request_id for span in spans if span.sequence.is_finished}
        assert bool(spans) == bool(self.open)  # while something waits, something runs
        assert sum(span.count for span in spans) <= self.limits.max_batch_tokens
        assert len(set(names(spans))) == len(spans)
        left_out = decoding - set(names(spans))
        assert not left_out or not any(span.sequence.is_answer for span in spans)  # it was a step of decisions alone
        assert not left_out & self.left_out  # no stream stalls
        self.left_out = left_out
        for span in spans:
            assert span.count > 0
            assert span.start >= before[span.sequence.request_id]
        for span in spans:
            if span.sequence.is_finished:
                del self.open[span.sequence.request_id]

    @rule(seconds=st.sampled_from([1.0, OVERDUE_AFTER_S / 2, OVERDUE_AFTER_S]))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds

    def expected(self) -> set[str]:
        """Short decisions that must end in the step that begins now, as they arrived before it."""
        half = self.limits.max_batch_tokens // 2
        decisions = [sequence for sequence in self.open.values() if not sequence.is_answer]
        if any(self.now_s - sequence.arrived_s >= OVERDUE_AFTER_S for sequence in decisions):
            return set()
        others = [sequence for sequence in self.open.values() if sequence.lease]
        if any(sequence.num_rows + half > self.cache.num_slots for sequence in others):
            return set()  # it was let in because it was alone
        short = [sequence for sequence in decisions if len(sequence.ids) <= half]
        num_places = max(self.limits.max_running - len(others) - 1, 1)  # an answer that was patient may take one
        fit = len(short) <= num_places and sum(len(sequence.ids) for sequence in short) <= half
        return {sequence.request_id for sequence in short} if fit else set()

    @invariant()
    def limits_hold(self) -> None:
        running = [sequence for sequence in self.open.values() if sequence.lease]
        answers = [sequence for sequence in running if sequence.is_answer]
        assert self.scheduler.num_running == len(running) <= self.limits.max_running
        assert len(answers) <= self.limits.max_answers
        assert sum(sequence.num_rows for sequence in answers) <= self.cache.num_slots * 3 / 4 + 1
        self.cache.check_integrity()

    def teardown(self) -> None:
        if not hasattr(self, "cache"):
            return
        for _ in range(10_000):
            if not self.open:
                break
            self.step()
        assert not self.open
        assert not self.scheduler.has_work
        assert self.cache.num_available == self.cache.num_slots
        self.cache.check_integrity()


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
