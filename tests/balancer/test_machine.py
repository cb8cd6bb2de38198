"""Registry, placement and queue under everything that can happen, in any order: hypothesis searches for the order that breaks them.

The machine is dispatcher, workers and clients in one, and keeps a ledger of its own of what must be true.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from qwen_aio.balancer.cost.queue import QueuedRequest, RequestQueue
from qwen_aio.balancer.dispatch.slot import Slot
from qwen_aio.balancer.params import PARAMS
from qwen_aio.status.record import WorkerStatus
from tests.balancer.world import CAPABILITIES, World, succeed

NAMES = ("a", "b", "c")
CAPACITY, MOST_ANSWERS, MOST_LONG = 4, 3, 2
MAX_ATTEMPTS = 3
WORKER = st.sampled_from(NAMES)
ANY = st.integers(0, 1000)  # which of those there are


@dataclass
class Truth:
    """How a worker really is, as far as the registry can know."""

    process: int = 1
    is_dead: bool = False
    is_beating: bool = True
    is_ending: bool = False  # it said so
    beat_at: float = 0.0
    token_at: float = -1000.0
    is_stalled: bool = False


@dataclass(eq=False)
class Held:
    """A slot, and the process it was taken on."""

    slot: Slot
    queued: QueuedRequest
    process: int


def is_answer(held: Held) -> bool:
    return held.queued.kind == "generation"


def is_long(held: Held) -> bool:
    return held.queued.is_long


class Machine(RuleBasedStateMachine):
    @initialize(policy=st.sampled_from(["weighted", "linear", "least_loaded", "round_robin", "random"]))
    def begin(self, policy: str) -> None:
        self.world = World(policy=policy, asked_for=NAMES)
        self.queue = RequestQueue(PARAMS)
        self.truth = {name: Truth(beat_at=self.world.clock.now) for name in NAMES}
        self.former: dict[str, list[WorkerStatus]] = {name: [] for name in NAMES}
        self.offline: set[str] = set()
        self.held: list[Held] = []
        self.attempts: Counter[QueuedRequest] = Counter()
        self.outcomes: Counter[QueuedRequest] = Counter()
        self.requests: list[QueuedRequest] = []
        self.world.up(*NAMES, capacity=CAPACITY)

    # ---- the dispatcher -----------------------------------------------------------------------------------------

    def match(self) -> None:
        """Let in every request that has a slot, and check the choice."""
        for queued in self.queue.in_order(self.world.clock.now):
            was_open = {row.id for row in self.world.registry.rows() if row.breaker == "open"}
            slot = self.world.placement.bind(queued)
            if slot is None:
                continue
            self.queue.remove(queued)
            self.attempts[queued] += 1
            self.held.append(Held(slot, queued, self.truth[slot.id].process))
            self.check_bound(slot, queued, was_open)
            assert not any(self.is_overtaken(other, queued) for other in self.queue.in_order(self.world.clock.now))

    def check_bound(self, slot: Slot, queued: QueuedRequest, was_open: set[str]) -> None:
        """I5: no request is sent to a worker that is gone, taken out, hanging or shut out."""
        truth, now = self.truth[slot.id], self.world.clock.now
        assert not (truth.is_dead or truth.is_ending or truth.is_stalled)
        assert slot.id not in self.offline | was_open | queued.tried
        assert min(now - truth.beat_at, now - truth.token_at) < PARAMS.stale_after_s

    def is_overtaken(self, other: QueuedRequest, queued: QueuedRequest) -> bool:
        """I8: a request that waited long is passed only by one that lost its worker, or that fits where it does not."""
        is_old = self.world.clock.now - other.arrived >= PARAMS.oldest_first_after_s
        are_alike = (other.kind, other.is_long, other.tried) == (queued.kind, queued.is_long, queued.tried)
        return is_old and are_alike and other.arrived < queued.arrived and not queued.is_returned

    def leave(self, held: Held) -> None:
        self.held.remove(held)
        held.slot.release()

    def end(self, queued: QueuedRequest) -> None:
        self.outcomes[queued] += 1

    def lose(self, held: Held) -> None:
        """Its attempt has failed: try again elsewhere, or give up."""
        held.slot.fail("connection lost")
        self.leave(held)
        if self.attempts[held.queued] >= MAX_ATTEMPTS:
            self.end(held.queued)
            return
        held.queued.tried.add(held.slot.id)
        held.queued.is_returned = True
        if not self.world.registry.has_another(held.queued):
            held.queued.tried.clear()
        self.queue.add(held.queued)

    # ---- what clients do ----------------------------------------------------------------------------------------

    @rule(
        kind=st.sampled_from(["decision", "long decision", "generation"]),
        work_s=st.floats(0.01, 10),
        count=st.integers(1, 8),
    )
    def arrive(self, kind: str, work_s: float, count: int) -> None:
        for _ in range(count):
            queued = self.world.queued(kind.split()[-1], work_s=work_s, is_long=kind == "long decision")
            self.requests.append(queued)
            self.queue.add(queued)
            self.match()

    @precondition(lambda self: len(self.queue))
    @rule(which=ANY)
    def cancel_waiting(self, which: int) -> None:
        waiting = self.queue.in_order(self.world.clock.now)
        queued = waiting[which % len(waiting)]
        self.queue.remove(queued)
        self.end(queued)

    @precondition(lambda self: self.held)
    @rule(which=ANY)
    def cancel_running(self, which: int) -> None:
        held = self.held[which % len(self.held)]
        self.leave(held)
        self.end(held.queued)
        self.match()

    # ---- what becomes of requests ----------------------------------------------------------------------------------

    def flowed(self, held: Held) -> None:
        truth = self.truth[held.slot.id]
        if truth.process == held.process:
            truth.token_at, truth.is_stalled = self.world.clock.now, False

    @precondition(lambda self: self.held)
    @rule(which=ANY)
    def token(self, which: int) -> None:
        held = self.held[which % len(self.held)]
        held.slot.progressed()
        self.flowed(held)
        self.match()

    @precondition(lambda self: self.held)
    @rule(which=ANY, service_s=st.floats(0.0, 30))
    def finish(self, which: int, service_s: float) -> None:
        held = self.held[which % len(self.held)]
        succeed(held.slot, service_s=service_s, tokens=5, decode_ms=100)
        self.flowed(held)
        self.leave(held)
        self.end(held.queued)
        self.match()

    @precondition(lambda self: self.held)
    @rule(which=ANY)
    def fail(self, which: int) -> None:
        self.lose(self.held[which % len(self.held)])
        self.match()

    @rule(name=WORKER)
    def fail_again_and_again(self, name: str) -> None:
        for _ in range(3):
            slot = self.world.placement.bind(self.world.queued(tried=set(NAMES) - {name}))
            if slot is not None:
                slot.fail("it answered with 500")
                slot.release()
        self.match()

    @precondition(lambda self: self.held)
    @rule(which=ANY)
    def stall(self, which: int) -> None:
        held = self.held[which % len(self.held)]
        held.slot.stalled()
        truth = self.truth[held.slot.id]
        truth.is_stalled = truth.is_stalled or truth.process == held.process
        self.match()

    # ---- what becomes of workers --------------------------------------------------------------------------------

    @rule(name=WORKER)
    def die(self, name: str) -> None:
        self.truth[name].is_dead, self.truth[name].is_beating = True, False
        self.world.registry.refused(name, "connection refused")
        for held in [each for each in self.held if each.slot.id == name]:
            self.lose(held)
        self.match()

    @rule(
        name=WORKER,
        is_known_dead=st.booleans(),
        generation=st.integers(1, 5),
        clock_set_s=st.sampled_from([-28800.0, 0.0, 28800.0]),
    )
    def restart(self, name: str, is_known_dead: bool, generation: int = 1, clock_set_s: float = 0.0) -> None:
        """The next process may be seen before the end of the last one is, and may look older."""
        if is_known_dead:
            self.die(name)
        before = self.world.statuses[name]
        self.former[name].append(before)
        self.world.restart(name, generation=generation, start_time=before.start_time + clock_set_s)
        self.truth[name] = Truth(self.truth[name].process + 1, beat_at=self.world.clock.now)
        assert self.world.row(name).in_flight == 0
        self.match()
        self.world.registry.describe(name, CAPABILITIES)
        self.match()

    @precondition(lambda self: any(self.former.values()))
    @rule(name=WORKER, which=ANY)
    def read_a_report_of_a_former_process(self, name: str, which: int) -> None:
        if self.former[name]:
            self.world.registry.report(self.former[name][which % len(self.former[name])])
            self.match()

    @precondition(lambda self: any(not truth.is_dead for truth in self.truth.values()))
    @rule(name=WORKER, state=st.sampled_from(["draining", "failed"]))
    def say_farewell(self, name: str, state: str) -> None:
        if not self.truth[name].is_dead:
            self.world.record(name, state=state)
            self.truth[name].is_ending, self.truth[name].is_beating = True, False
            self.match()

    @rule(name=WORKER)
    def freeze(self, name: str) -> None:
        self.truth[name].is_beating = False

    @rule(name=WORKER)
    def thaw(self, name: str) -> None:
        truth = self.truth[name]
        truth.is_beating = not (truth.is_dead or truth.is_ending)

    @rule(name=WORKER, slow_ms=st.sampled_from([100.0, 2000.0, 3000.0]))
    def report_finished_work(self, name: str, slow_ms: float) -> None:
        if self.truth[name].is_beating:
            self.beat(name, completed=self.world.statuses[name].completed + 1, slow_ms=slow_ms)
            self.match()

    # ---- what people do -----------------------------------------------------------------------------------------

    @rule(name=WORKER, state=st.sampled_from(["maint", "drain"]))
    def take_offline(self, name: str, state) -> None:
        self.world.registry.set_admin(name, state, force=True)
        self.offline.add(name)
        self.match()

    @rule(name=WORKER)
    def bring_online(self, name: str) -> None:
        self.world.registry.set_admin(name, "ready", force=False)
        self.offline.discard(name)
        self.match()

    # ---- time ---------------------------------------------------------------------------------------------------

    def beat(self, name: str, **more) -> None:
        self.world.record(name, **more)
        truth = self.truth[name]
        truth.beat_at = self.world.clock.now
        if not any(held.slot.id == name and held.process == truth.process for held in self.held):
            truth.is_stalled = False  # no request is left that could lift it

    @rule(half_seconds=st.integers(1, 24))
    def wait(self, half_seconds: int) -> None:
        for step in range(half_seconds):
            self.world.clock.advance(0.5)
            for name in NAMES:
                if self.truth[name].is_beating and step % 4 == 3:
                    self.beat(name)
                else:
                    self.world.read(name)
            self.world.registry.tick()
            for queued in self.queue.in_order(self.world.clock.now):
                if self.world.clock.now >= queued.deadline:
                    self.queue.remove(queued)
                    self.end(queued)
            self.match()

    # ---- what always holds --------------------------------------------------------------------------------------

    @invariant()
    def what_is_in_flight_is_what_is_held(self) -> None:
        for row in self.world.registry.rows():
            mine = [held for held in self.held if held.slot.id == row.id and held.process == self.truth[row.id].process]
            assert row.in_flight == len(mine) >= 0
            assert len(mine) <= CAPACITY
            num_answers, num_long = (sum(map(of, mine)) for of in (is_answer, is_long))
            assert num_answers <= MOST_ANSWERS
            assert num_long <= MOST_LONG
            assert num_answers + num_long < CAPACITY  # a slot is left to a short decision

    @invariant()
    def every_request_waits_or_runs_or_has_one_outcome(self) -> None:
        running = Counter(held.queued for held in self.held)
        waiting = Counter(self.queue.in_order(self.world.clock.now))
        assert running + waiting + self.outcomes == Counter(self.requests)

    @invariant()
    def no_request_waits_for_a_slot_that_is_free(self) -> None:
        for queued in self.queue.in_order(self.world.clock.now):
            assert self.world.placement.bind(queued) is None

    @invariant()
    def every_change_is_recorded_once(self) -> None:
        for axis in ({"unknown", "starting", "up", "demoted", "suspect", "down"}, {"ready", "maint", "drain"}):
            for name in NAMES:
                told = [change.split(" -> ") for change in self.world.changes(name) if change.split(" -> ")[0] in axis]
                assert all(before != after for before, after in told)
                assert all(told[i][1] == told[i + 1][0] for i in range(len(told) - 1))

    @invariant()
    def at_most_half_are_demoted(self) -> None:
        rows = [row for row in self.world.registry.rows() if row.health in ("up", "demoted", "suspect")]
        serving = [row for row in rows if row.admin == "ready"]
        assert sum(row.health == "demoted" for row in serving) <= len(serving) // 2

    @invariant()
    def all_that_is_shown_makes_sense(self) -> None:
        for row in self.world.registry.rows():
            assert row.why
            assert row.speed > 0
            assert row.cost is None or row.cost.total > 0
        assert 0 <= self.world.registry.num_ready <= len(NAMES)

    def teardown(self) -> None:
        """I1 and I3: when everything works again, all that is left ends well, and nothing remains counted."""
        if not hasattr(self, "world"):
            return
        for name in NAMES:
            self.bring_online(name)
            self.restart(name, True)
        while self.held or len(self.queue):
            self.match()
            while self.held:
                self.finish(0, 0.1)
            self.wait(4)
        assert (self.world.in_flight(), len(self.queue), self.queue.work_s) == (0, 0, 0)
        assert self.outcomes == Counter(self.requests)


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
