"""Arrivals, aborts and steps of the scheduler in any order."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from qwen_aio.engine.config import EngineLimits
from qwen_aio.engine.kv.radix_cache import RadixCache
from qwen_aio.engine.scheduling.order import OVERDUE_AFTER_S
from qwen_aio.engine.scheduling.scheduler import MIN_SAVED, Scheduler
from qwen_aio.engine.scheduling.sequence import Sequence
from tests.engine.fake_sequences import FakeAnswer, FakeDecision, compute, names


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
