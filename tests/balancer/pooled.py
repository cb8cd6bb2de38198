"""A pool with a clock that stands still, workers that say what the test lets them say, and jobs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from random import Random

from qwen_aio.balancer.cost.policies import POLICIES
from qwen_aio.balancer.cost.queue import QueuedRequest
from qwen_aio.balancer.dispatch.placement import Placement
from qwen_aio.balancer.dispatch.slot import Slot
from qwen_aio.balancer.params import RULES, Params
from qwen_aio.balancer.snapshot import WorkerRow
from qwen_aio.core import Capabilities, ContextLimits, EngineRequest, Task, TaskKind, Timings, Usage, WorkerStatus
from tests.fakes import FakeClock

SENTIMENT = Task("sentiment", "decision", {"en": "Feeling"}, "", "hash-s")
CHAT = Task("chat", "generation", {"en": "Chat"}, "", "hash-c")
OFFER = Capabilities({"sentiment": SENTIMENT, "chat": CHAT}, ContextLimits(2048, 1024), "fake", "worker")
TASKS: Mapping[TaskKind, str] = {"decision": "sentiment", "generation": "chat"}
START = 1_700_000_000.0  # unix seconds


class World:
    """A pool and everything around it. `events` is what it told: worker, actor, change."""

    def __init__(self, *, rules: Params = RULES, policy: str = "weighted", asked_for: Collection[str] = ()):
        self.clock = FakeClock()
        self.told: list[tuple[str, str, str, str]] = []
        self.statuses: dict[str, WorkerStatus] = {}
        self.num_jobs = 0
        self.pool = Placement(
            rules,
            policy=POLICIES[policy](rules, Random(1)),
            clock=self.clock,
            wall_clock=lambda: START + self.clock.now,
            on_event=lambda *event: self.told.append(event),
            asked_for=asked_for,
        )

    @property
    def events(self) -> list[tuple[str, str, str]]:
        return [event[:3] for event in self.told]

    def changes(self, worker_id: str) -> list[str]:
        return [change for worker, _, change in self.events if worker == worker_id]

    # ---- workers ----

    def record(self, worker_id: str, **more) -> None:
        """The worker writes its next record, and the record is read."""
        before = self.statuses.get(worker_id)
        if before is None:
            identity = (worker_id, f"http://{worker_id}", 1, START, 1, 0)
            before = WorkerStatus(*identity, "ready", capacity=8, model_sha="sha", precision="int8")
        self.statuses[worker_id] = replace(before, **({"seq": before.seq + 1} | more))
        self.read(worker_id)

    def read(self, worker_id: str) -> None:
        """What stands in the file is read once more."""
        self.pool.report(self.statuses[worker_id])

    def answer(self, worker_id: str, **more) -> None:
        """The worker is asked itself, and gives the record it wrote last."""
        self.pool.answered(replace(self.statuses[worker_id], **more), asked_at=self.clock.now)

    def up(self, *worker_ids: str, offer: Capabilities = OFFER, **more) -> None:
        """Workers that have done all it takes to be given work."""
        for worker_id in worker_ids:
            self.record(worker_id, **more)
            self.answer(worker_id)
            self.pool.describe(worker_id, offer)

    def restart(self, worker_id: str, **more) -> None:
        """The worker's next life, which is asked as soon as its first record is read."""
        before = self.statuses[worker_id]
        later = {"pid": before.pid + 1, "start_time": before.start_time + 1, "generation": before.generation + 1}
        self.record(worker_id, **({"seq": 1, "state": "ready", "completed": 0, "slow_ms": None} | later | more))
        self.clock.advance(0.001)
        self.answer(worker_id)

    def pass_time(self, seconds: float, *, beating: Collection[str] = ()) -> None:
        """Time passes in half seconds, and the file is read; who is in `beating` reports every two."""
        for step in range(1, round(seconds * 2) + 1):
            self.clock.advance(0.5)
            for worker_id in self.statuses:
                self.record(worker_id) if worker_id in beating and step % 4 == 0 else self.read(worker_id)
            self.pool.tick()

    def row(self, worker_id: str) -> WorkerRow:
        return next(row for row in self.pool.rows() if row.id == worker_id)

    def health(self, worker_id: str) -> str:
        return self.row(worker_id).health

    def in_flight(self) -> int:
        return sum(row.in_flight for row in self.pool.rows())

    # ---- jobs ----

    def job(self, kind: TaskKind = "decision", *, work_s: float = 0.1, **more) -> QueuedRequest:
        self.num_jobs += 1
        call = EngineRequest(f"r{self.num_jobs}", TASKS[kind], "text")
        return QueuedRequest(self.num_jobs, call, kind, work_s, self.clock.now, self.clock.now + 60, **more)

    def bind(self, kind: TaskKind = "decision", **more) -> Slot:
        seat = self.pool.bind(self.job(kind, **more))
        assert seat is not None
        return seat

    def serve(self, kind: TaskKind = "decision", **more) -> str:
        """One call from its place to its end; the id of the worker that got it."""
        seat = self.bind(kind, **more)
        succeed(seat)
        seat.release()
        return seat.id

    def fail(self, worker_id: str, times: int = 1) -> None:
        """Calls on this worker fail."""
        others = {row.id for row in self.pool.rows()} - {worker_id}
        for _ in range(times):
            seat = self.bind(tried=set(others))
            seat.fail("it answered with 500")
            seat.release()


def succeed(seat: Slot, *, service_s: float = 0.1, tokens: int = 0, decode_ms: float = 0.0) -> None:
    """The worker reports what such a call is guessed to cost, so the reference stays what it is."""
    prefill_ms = (RULES.fixed_work_s + 15 / RULES.prefill_tokens_per_s) * 1000
    timings = Timings(prefill_ms=prefill_ms, decode_ms=decode_ms)
    seat.succeed(service_s=service_s, usage=Usage(20, 5, tokens), timings=timings)
