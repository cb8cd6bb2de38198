"""News as JSON, and as the events of a stream, whose rows are the texts of their cells."""

from __future__ import annotations

from collections.abc import Iterable

import pydantic_core

from qwen_aio.balancer.dashboard.cells import event_cells, history_cells, request_cells, snapshot_cells
from qwen_aio.balancer.dashboard.strings import DashboardStrings
from qwen_aio.balancer.snapshot import EventRow, RequestRow, Sample, Snapshot
from qwen_aio.balancer.stats import News, StatsHistory


def to_json(content: object) -> bytes:
    """UTF-8, on one line."""
    return pydantic_core.to_json(content, inf_nan_mode="null")


def frames(batch: Iterable[News], strings: DashboardStrings) -> bytes:
    """All of `batch` as it is sent."""
    return b"".join(_frame(*_event(news, strings)) for news in batch)


def _frame(name: str, content: object) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), to_json(content))


def _event(news: News, strings: DashboardStrings) -> tuple[str, object]:
    match news:
        case StatsHistory():
            return "history", history_cells(news, strings)
        case Snapshot():
            return "snapshot", snapshot_cells(news, strings)
        case RequestRow():
            return "request", request_cells(news, strings)
        case EventRow():
            return "event", event_cells(news, strings)
        case Sample():
            return "sample", news
