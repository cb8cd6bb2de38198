"""A registry and a placement with a clock that stands still, workers that a test drives, and requests."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from random import Random

from qwen_aio.balancer.cost.policies import POLICIES
from qwen_aio.balancer.cost.queue import QueuedRequest
from qwen_aio.balancer.dispatch.placement import Placement
from qwen_aio.balancer.dispatch.slot import Slot
from qwen_aio.balancer.params import PARAMS, Params
from qwen_aio.balancer.snapshot import WorkerRow
from qwen_aio.balancer.workers.registry import Registry
from qwen_aio.core import Capabilities, ContextLimits, EngineRequest, Task, TaskKind
from qwen_aio.result import Timings, Usage
from qwen_aio.status.record import WorkerStatus
from tests.fakes import FakeClock

SENTIMENT = Task("sentiment", "decision", {"en": "Sentiment"}, "", "hash-s")
CHAT = Task("chat", "generation", {"en": "Chat"}, "", "hash-c")
CAPABILITIES = Capabilities({"sentiment": SENTIMENT, "chat": CHAT}, ContextLimits(2048, 1024), "fake", "worker")
TASKS: Mapping[TaskKind, str] = {"decision": "sentiment", "generation": "chat"}
START = 1_700_000_000.0  # unix seconds


class World:
    """A registry, a placement and their surroundings. `events` are the recorded ones: worker, actor, change."""

    def __init__(self, *, params: Params = PARAMS, policy: str = "weighted", asked_for: Collection[str] = ()):
        self.clock = FakeClock()
        self.recorded: list[tuple[str, str, str, str]] = []
        self.statuses: dict[str, WorkerStatus] = {}
        self.num_requests = 0
        self.registry = Registry(
            params,
            clock=self.clock,
            wall_clock=lambda: START + self.clock.now,
            on_event=lambda *event: self.recorded.append(event),
            asked_for=asked_for,
        )
        self.placement = Placement(self.registry, POLICIES[policy](params, Random(1)))

    @property
    def events(self) -> list[tuple[str, str, str]]:
        return [event[:3] for event in self.recorded]

    def changes(self, worker_id: str) -> list[str]:
        return [change for worker, _, change in self.events if worker == worker_id]

    # ---- workers ----

    def record(self, worker_id: str, **more) -> None:
        """The worker writes its next report, and the report is read."""
        before = self.statuses.get(worker_id)
        if before is None:
            identity = (worker_id, f"http://{worker_id}", 1, START, 1, 0)
            before = WorkerStatus(*identity, "ready", capacity=8, model_sha="sha", precision="int8", kernel="avx2")
        self.statuses[worker_id] = replace(before, **({"seq": before.seq + 1} | more))
        self.read(worker_id)

    def read(self, worker_id: str) -> None:
        """What stands in the file is read once more."""
        self.registry.report(self.statuses[worker_id])

    def answer(self, worker_id: str, **more) -> None:
        """The worker is asked, and gives the report it wrote last."""
        self.registry.answered(replace(self.statuses[worker_id], **more), asked_at=self.clock.now)

    def up(self, *worker_ids: str, capabilities: Capabilities = CAPABILITIES, **more) -> None:
        """Workers that have done all it takes to get requests."""
        for worker_id in worker_ids:
            self.record(worker_id, **more)
            self.answer(worker_id)
            self.registry.describe(worker_id, capabilities)

    def restart(self, worker_id: str, **more) -> None:
        """The worker's next process, which is asked as soon as its first report is read."""
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
            self.registry.tick()

    def row(self, worker_id: str) -> WorkerRow:
        return next(row for row in self.registry.rows() if row.id == worker_id)

    def health(self, worker_id: str) -> str:
        return self.row(worker_id).health

    def in_flight(self) -> int:
        return sum(row.in_flight for row in self.registry.rows())

    # ---- requests ----

    def queued(self, kind: TaskKind = "decision", *, work_s: float = 0.1, **more) -> QueuedRequest:
        self.num_requests += 1
        request = EngineRequest(f"r{self.num_requests}", TASKS[kind], "text")
        return QueuedRequest(self.num_requests, request, kind, work_s, self.clock.now, self.clock.now + 60, **more)

    def bind(self, kind: TaskKind = "decision", **more) -> Slot:
        slot = self.placement.bind(self.queued(kind, **more))
        assert slot is not None
        return slot

    def serve(self, kind: TaskKind = "decision", **more) -> str:
        """One request from its slot to its end; the id of the worker that got it."""
        slot = self.bind(kind, **more)
        succeed(slot)
        slot.release()
        return slot.id

    def fail(self, worker_id: str, times: int = 1) -> None:
        """Attempts on this worker fail."""
        others = {row.id for row in self.registry.rows()} - {worker_id}
        for _ in range(times):
            slot = self.bind(tried=set(others))
            slot.fail("it answered with 500")
            slot.release()


def succeed(slot: Slot, *, service_s: float = 0.1, tokens: int = 0, decode_ms: float = 0.0) -> None:
    """The worker reports the predicted cost of such a request, so the cost model stays as it is."""
    prefill_ms = (PARAMS.fixed_work_s + 15 / PARAMS.prefill_tokens_per_s) * 1000
    timings = Timings(prefill_ms=prefill_ms, decode_ms=decode_ms)
    slot.succeed(service_s=service_s, usage=Usage(20, 5, tokens), timings=timings)
