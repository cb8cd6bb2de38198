"""Rows -> the texts in the cells of the tables, for the first paint and for every update after it.

Knows words and units, no HTML: the templates and static/rows.js put each text in its place.
A `time` is in unix seconds: the script shows it on the visitor's clock.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from qwen_aio.balancer.dashboard.strings import DashboardStrings
from qwen_aio.balancer.snapshot import EventRow, RequestRow, Sample, Snapshot, WorkerRow
from qwen_aio.balancer.stats import StatsHistory

Cells = dict[str, str | float]  # name of a cell -> its text; numbers are for the script

NONE = "–"
BAR_WIDTH = 100.0
BAR_HEIGHT = 16.0
HIGHEST_BAR_MS = 10_000.0
NUM_BARS = 5
HASH_CHARS = 8


def history_cells(history: StatsHistory, strings: DashboardStrings) -> dict[str, Sequence[Cells | Sample]]:
    """The first event of a stream, oldest rows first."""
    return {
        "samples": history.moments,
        "requests": [request_cells(row, strings) for row in history.requests],
        "events": [event_cells(row, strings) for row in history.events],
    }


def snapshot_cells(snapshot: Snapshot, strings: DashboardStrings) -> dict[str, float | Cells | list[Cells]]:
    """The service as it is."""
    return {
        "time": snapshot.time,
        "summary": summary_cells(snapshot, strings),
        "workers": [worker_cells(row, strings) for row in snapshot.workers],
    }


def summary_cells(snapshot: Snapshot, strings: DashboardStrings) -> Cells:
    """The line above the tables."""
    work = f" ({seconds(snapshot.waiting_work_s, digits=1)})" if snapshot.waiting else ""
    return {
        "state": snapshot.state,
        "state_word": strings.word(snapshot.state),
        "ready": f"{snapshot.ready} / {snapshot.asked_for}",
        "waiting": number(snapshot.waiting) + work,
        "in_flight": number(snapshot.in_flight),
        "requests": number(snapshot.requests),
        "failures": number(snapshot.failures),
        "egress": egress([snapshot.egress_refused, *(row.egress_refused for row in snapshot.workers)], strings),
        "policy": snapshot.policy,
        "version": snapshot.version,
    }


def worker_cells(row: WorkerRow, strings: DashboardStrings) -> Cells:
    """One worker: its line, and the line of details below."""
    state = row.health if row.admin == "ready" else row.admin
    return {
        "id": row.id,
        "url": row.url.partition("://")[2] or row.url,
        "admin": row.admin,
        "state": state,
        "state_word": strings.word(state),
        "health_word": "" if row.admin == "ready" else strings.word(row.health),
        **_reason(row.why, strings),
        "breaker": row.breaker,
        "breaker_word": strings.word(row.breaker),
        "cpu": f"{number(row.cpu_percent)} %",
        "cpu_width": _share(row.cpu_percent, 100.0),
        "jitter": f"± {number(row.cpu_jitter, 1)}",
        "in_flight": f"{row.in_flight} / {row.capacity}",
        "in_flight_width": _share(row.in_flight, row.capacity),
        "running": number(row.running),
        "queued": number(row.queue_depth),
        "latency": milliseconds(row.latency_ms_mean5),
        "last_five": " · ".join(milliseconds(value) for value in row.latency_ms_last5) or NONE,
        **_bars(row.latency_ms_last5),
        "first_token": milliseconds(row.ttft_ms_mean5),
        "tokens": number(row.tokens_per_second, 1),
        "memory": f"{number(row.rss_mb)} MB",
        "egress": egress([row.egress_refused], strings),
        "uptime": span(row.uptime_s),
        "cost": seconds(row.cost.total if row.cost else None),
        "terms": _terms(row, strings),
        "age": seconds(row.status_age_s, digits=1),
        "completed": number(row.completed),
        "model": row.model or NONE,
        "model_sha": row.model_sha[:HASH_CHARS] or NONE,
        "precision": f"{row.precision} {row.kernel}".strip() or NONE,
        "tasks_sha": row.tasks_sha[:HASH_CHARS] or NONE,
        "process": f"{row.pid} #{row.generation}",
    }


def request_cells(row: RequestRow, strings: DashboardStrings) -> Cells:
    """One line of the request log."""
    return {
        "number": row.number,
        "time": row.time,
        "id": row.id,
        "task": row.task,
        "worker": row.worker or strings.no_worker,
        **_reason(row.why or NONE, strings),
        "attempts": number(row.attempts),
        "queue": milliseconds(row.queue_ms),
        "total": milliseconds(row.total_ms),
        "tokens": number(row.tokens) if row.tokens else NONE,
        "outcome": row.outcome,
        "outcome_word": strings.word(row.outcome),
        "error": row.error,
    }


def event_cells(row: EventRow, strings: DashboardStrings) -> Cells:
    """One line of the event log."""
    return {
        "number": row.number,
        "time": row.time,
        "worker": row.worker,
        "actor": strings.word(row.actor),
        "change": strings.change_of(row.change),
        **_reason(row.why, strings),
    }


def egress(refused: Sequence[int | None], strings: DashboardStrings) -> str:
    """All together; of processes that do not count, only that there are some."""
    counted = [value for value in refused if value is not None]
    uncounted = strings.not_offline if len(counted) < len(refused) else ""
    return " + ".join(filter(None, [number(sum(counted)) if counted else "", uncounted]))


def number(value: float, digits: int = 0) -> str:
    return f"{value:,.{digits}f}"


def milliseconds(value: float | None) -> str:
    if value is None:
        return NONE
    if value < 1000:
        return f"{number(value)} ms"
    return f"{number(value / 1000, 2 if value < 10_000 else 1)} s"


def seconds(value: float | None, *, digits: int = 3) -> str:
    """A short time, exact while it is short."""
    if value is None:
        return NONE
    return f"{number(value, digits if value < 10 else 0)} s"


def span(value_s: float | None) -> str:
    """A long time, in its two largest units."""
    if value_s is None:
        return NONE
    minutes = int(value_s // 60)
    if minutes < 1:
        return f"{int(value_s)} s"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // (24 * 60)} d {minutes // 60 % 24} h"


def _reason(why: str, strings: DashboardStrings) -> Cells:
    text, language = strings.reason_of(why)
    return {"why": text, "why_lang": language}


def _terms(row: WorkerRow, strings: DashboardStrings) -> str:
    if row.cost is None:
        return strings.no_cost
    return strings.terms.format(
        queue=seconds(row.cost.queue_s),
        jitter=number(row.cost.jitter_factor, 2),
        failures=number(row.cost.failure_factor, 2),
        demotion=number(row.cost.demotion_factor),
    )


def _share(value: float, whole: float) -> str:
    return number(BAR_WIDTH * min(value / whole, 1) if whole else 0, 1)


def _bars(values_ms: tuple[float, ...]) -> Cells:
    """Heights on a logarithmic scale, so that the bars of all workers can be compared."""
    heights = [BAR_HEIGHT * min(math.log(value + 1) / math.log(HIGHEST_BAR_MS), 1) for value in values_ms[-NUM_BARS:]]
    return {
        f"bar{index}": number(height, 1) for index, height in enumerate(heights + [0.0] * (NUM_BARS - len(heights)))
    }
