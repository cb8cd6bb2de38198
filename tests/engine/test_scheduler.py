"""Who runs and what a step takes, with sequences that compute nothing."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from qwen_aio.core import Cuts
from qwen_aio.engine.config import EngineLimits
from qwen_aio.engine.kv_cache import KvCache
from qwen_aio.engine.scheduler import MIN_SPARED, PATIENCE, Scheduler, Span
from qwen_aio.engine.sequence import Sequence

LIMITS = EngineLimits(max_context=64, max_running=4, max_answers=2, max_batch_tokens=16)


class FakeDecision(Sequence):
    def __init__(self, name: str, ids: list[int]) -> None:
        super().__init__(name, ids, len(ids), len(ids), 0.0, Cuts())


class FakeAnswer(Sequence):
    """Generates `max_tokens` tokens, always the same one."""

    def __init__(self, name: str, ids: list[int], *, max_tokens: int) -> None:
        super().__init__(name, list(ids), len(ids), len(ids) + max_tokens, 0.0, Cuts())

    @property
    def is_answer(self) -> bool:
        return True

    @property
    def is_decoding(self) -> bool:
        return len(self.ids) > self.num_prompt

    @property
    def is_finished(self) -> bool:
        return len(self.ids) == self.num_rows


def compute(scheduler: Scheduler) -> list[Span]:
    """What the engine does with a batch, without the numbers."""
    scheduler.admit(now_s=0.0)
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
    return Scheduler(KvCache(num_slots), limits)


def rows(spans: list[Span]) -> list[tuple[str, int, int]]:
    return [(span.sequence.request_id, span.start, span.count) for span in spans]


def test_a_step_takes_one_row_of_each_answer_and_chunks_of_prompts() -> None:
    scheduler = make()
    scheduler.add(FakeAnswer("a", [1, 2, 3], max_tokens=9))
    assert rows(compute(scheduler)) == [("a", 0, 3)]
    scheduler.add(FakeAnswer("b", list(range(10)), max_tokens=5))
    assert rows(compute(scheduler)) == [("a", 3, 1), ("b", 0, 7)]  # half of 15: somebody reads along
    assert rows(compute(scheduler)) == [("a", 4, 1), ("b", 7, 3)]
    assert rows(compute(scheduler)) == [("a", 5, 1), ("b", 10, 1)]


def test_beside_answers_every_other_step_is_of_decisions_alone() -> None:
    scheduler = make()
    scheduler.add(FakeAnswer("a", [1, 2, 3], max_tokens=9))
    compute(scheduler)
    scheduler.add(FakeDecision("d", list(range(40))))
    assert rows(compute(scheduler)) == [("d", 0, 16)]
    assert rows(compute(scheduler)) == [("a", 3, 1), ("d", 16, 7)]
    assert rows(compute(scheduler)) == [("d", 23, 16)]
    scheduler.add(FakeDecision("e", list(range(4))))
    assert rows(compute(scheduler)) == [("a", 4, 1), ("d", 39, 1), ("e", 0, 4)]
    scheduler.add(FakeDecision("f", [7] * 4))
    assert rows(compute(scheduler)) == [("f", 0, 4)]
    assert rows(compute(scheduler)) == [("a", 5, 1)]


def test_decisions_are_computed_before_answers_that_came_earlier() -> None:
    scheduler = make()
    scheduler.add(FakeAnswer("a", [1] * 30, max_tokens=5))
    scheduler.add(FakeDecision("d", [2] * 12))
    assert rows(compute(scheduler)) == [("d", 0, 12)]
    scheduler.add(FakeDecision("e", [3] * 20))
    assert rows(compute(scheduler)) == [("e", 0, 12), ("a", 0, 4)]  # a quarter is left to answers


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


def test_decisions_may_use_every_place() -> None:
    scheduler = make()
    for n in range(6):
        scheduler.add(FakeDecision(f"d{n}", [n] * 10))
    scheduler.admit(now_s=0.0)
    assert scheduler.num_running == LIMITS.max_running


def test_a_flood_of_decisions_does_not_starve_an_answer() -> None:
    scheduler = make()
    scheduler.add(FakeAnswer("a", [5] * 12, max_tokens=2))
    ran = set[str]()
    for n in range(PATIENCE + 40):
        scheduler.add(FakeDecision(f"d{n}", [n % 7] * 16))  # as fast as they are computed
        scheduler.add(FakeDecision(f"e{n}", [n % 5] * 16))
        ran |= set(names(compute(scheduler)))
    assert "a" in ran


def test_the_first_in_line_is_not_passed_when_memory_is_short() -> None:
    scheduler = make(num_slots=80)
    scheduler.add(FakeDecision("big", [1] * 60))
    scheduler.admit(now_s=0.0)
    scheduler.add(FakeDecision("waits", [2] * 50))
    scheduler.add(FakeDecision("small", [3] * 5))
    assert names(compute(scheduler)) == ["big"]
    order = [name for _ in range(12) for name in names(compute(scheduler))]
    assert order.index("waits") < order.index("small")


def test_a_long_common_beginning_is_computed_once() -> None:
    scheduler = make()
    beginning = [7] * 40
    for n in range(3):
        scheduler.add(FakeDecision(f"d{n}", [*beginning, n, n]))
    steps = [compute(scheduler) for _ in range(4)]
    assert [(*names(spans), spans[0].count) for spans in steps[:3]] == [("d0", 16), ("d0", 16), ("d0", 10)]
    assert [(*names([span]), span.start, span.count) for span in steps[3]] == [("d1", 40, 2), ("d2", 40, 2)]


def test_a_short_common_beginning_keeps_nobody_waiting() -> None:
    scheduler = make()
    for n in range(3):
        scheduler.add(FakeDecision(f"d{n}", [*[7] * (MIN_SPARED - 1), n, n]))
    compute(scheduler)
    assert scheduler.num_running == 3


def test_nobody_waits_for_one_that_has_far_more_to_compute() -> None:
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
    scheduler.add(FakeDecision("behind", [1, 2]))
    assert names(compute(scheduler)) == ["d"]
    assert "behind" in [name for _ in range(3) for name in names(compute(scheduler))]


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


def test_its_picture_tells_who_waits() -> None:
    scheduler = make()
    scheduler.add(FakeDecision("d", [1]))
    scheduler.add(FakeAnswer("a", [1], max_tokens=3))
    assert repr(scheduler) == "<Scheduler 1 decisions and 1 answers waiting, 0 running>"


class SchedulerMachine(RuleBasedStateMachine):
    """Arrivals, aborts and steps in any order, with little memory."""

    @initialize(num_slots=st.integers(24, 240), budget=st.integers(8, 40))
    def start(self, num_slots: int, budget: int) -> None:
        self.cache = KvCache(num_slots)
        self.limits = EngineLimits(max_context=64, max_running=4, max_answers=2, max_batch_tokens=budget)
        self.scheduler = Scheduler(self.cache, self.limits)
        self.left_out: set[str] = set()  # answers that the last step did nothing for
        self.open: dict[str, Sequence] = {}
        self.count = 0

    @rule(
        common=st.sampled_from([0, MIN_SPARED, MIN_SPARED + 8]),
        ids=st.lists(st.integers(0, 2), min_size=1, max_size=20),
        more=st.integers(0, 20),
    )
    def arrive(self, common: int, ids: list[int], more: int) -> None:
        self.count += 1
        name = str(self.count)
        ids = [self.count // 4] * common + ids  # a few arrivals in a row begin alike
        sequence = FakeAnswer(name, ids, max_tokens=more) if more else FakeDecision(name, ids)
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
        spans = compute(self.scheduler)
        assert bool(spans) == bool(self.open)  # whoever waits, something moves
        assert sum(span.count for span in spans) <= self.limits.max_batch_tokens
        assert len(set(names(spans))) == len(spans)
        left_out = decoding - set(names(spans))
        assert not left_out or not any(span.sequence.is_answer for span in spans)  # it was a step of decisions alone
        assert not left_out & self.left_out  # nobody's stream stalls
        self.left_out = left_out
        for span in spans:
            assert span.count > 0
            assert span.start >= before[span.sequence.request_id]
        for span in spans:
            if span.sequence.is_finished:
                del self.open[span.sequence.request_id]

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
