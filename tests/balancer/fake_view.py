"""A balancer for the dashboard: rows that a test sets, real Stats, the real rules for admin states."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from qwen_aio.balancer.reasons import NEVER_HEARD, Reason
from qwen_aio.balancer.snapshot import AdminState, Cost, RequestRow, Snapshot, WorkerRow
from qwen_aio.balancer.stats import Stats
from qwen_aio.errors import LastWorker, UnknownWorker

ROW = WorkerRow(
    id="qwen-1",
    url="http://127.0.0.1:7861",
    admin="ready",
    health="up",
    why="its report is fresh",
    breaker="closed",
    in_flight=3,
    running=2,
    capacity=8,
    queue_depth=1,
    cpu_percent=93.1,
    cpu_jitter=4.2,
    latency_ms_last5=(88.0, 91.4, 102.0, 80.0, 1250.0),
    latency_ms_mean5=322.3,
    ttft_ms_mean5=61.0,
    tokens_per_second=24.13,
    rss_mb=812.4,
    egress_refused=0,
    uptime_s=8000.0,
    status_age_s=0.84,
    completed=1234,
    speed=1.3,
    cost=Cost(queue_s=0.01, jitter_factor=1.04, failure_factor=1.0, demotion_factor=1.0, total=0.0104),
    pid=4242,
    generation=3,
    model="qwen-aio-bundled",
    model_sha="0123456789abcdef",
    precision="int8",
    kernel="avx2",
    tasks_sha="fedcba9876543210",
)
SECOND = replace(ROW, id="qwen-2", url="http://127.0.0.1:7961", in_flight=0, cpu_percent=12.0)
NEW = replace(
    ROW,
    id="qwen-3",
    url="",
    health="starting",
    why=Reason(NEVER_HEARD),
    in_flight=0,
    capacity=0,
    latency_ms_last5=(),
    latency_ms_mean5=None,
    ttft_ms_mean5=None,
    uptime_s=None,
    status_age_s=None,
    cost=None,
    model="",
    model_sha="",
    precision="",
    kernel="",
    tasks_sha="",
)


class FakeView:
    """The balancer, as the dashboard sees it. Change `rows` and `tick`, or record something in `stats`."""

    def __init__(self, *rows: WorkerRow, time: Callable[[], float] = lambda: 1_700_000_000.0) -> None:
        self.rows = {row.id: row for row in rows or (ROW, SECOND)}
        self.wall_clock = time
        self.stats = Stats(wall_clock=time)
        self.wanted: list[tuple[str, AdminState, bool]] = []

    def snapshot(self) -> Snapshot:
        ready = [row for row in self.rows.values() if _is_ready(row)]
        return Snapshot(
            time=self.wall_clock(),
            state="ok" if len(ready) == len(self.rows) else "degraded" if ready else "unavailable",
            policy="weighted",
            asked_for=len(self.rows),
            ready=len(ready),
            waiting=2,
            waiting_work_s=1.234,
            in_flight=sum(row.in_flight for row in self.rows.values()),
            requests=self.stats.num_requests,
            failures=self.stats.num_failures,
            egress_refused=0,
            version="0.1.0",
            workers=tuple(self.rows.values()),
        )

    def set_admin(self, worker_id: str, state: AdminState, *, force: bool) -> None:
        row = self.rows.get(worker_id)
        if row is None:
            raise UnknownWorker("no worker has this id")
        others = [other for other in self.rows.values() if other.id != worker_id and _is_ready(other)]
        if state != "ready" and _is_ready(row) and not others and not force:
            raise LastWorker(f"without {worker_id} no worker would be left")
        self.wanted.append((worker_id, state, force))
        self.rows[worker_id] = replace(row, admin=state, why=f"a person set it to {state}")
        self.stats.event(worker_id, "person", f"{row.admin} -> {state}", "by the dashboard")

    def tick(self) -> None:
        self.stats.tick(self.snapshot())

    def finish(
        self,
        request_id: str,
        *,
        worker: str = "qwen-1",
        task: str = "sentiment",
        why: str = "cost 0.010: queue 0.010 s, jitter x1.04",
        error: BaseException | None = None,
    ) -> None:
        """One call has ended."""
        row = RequestRow(
            id=request_id,
            task=task,
            worker=worker,
            why=why,
            attempts=1,
            queue_ms=1.2,
            total_ms=90.1,
            tokens=12 if task == "chat" else 0,
        )
        self.stats.record(row, error)


def _is_ready(row: WorkerRow) -> bool:
    return row.admin == "ready" and row.health in ("up", "demoted")
