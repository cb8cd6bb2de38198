"""Snapshots and rows as JSON, and as events of a stream: each is called what it is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import TypeAdapter

from qwen_aio.balancer.snapshot import EventRow, RequestRow, Sample, Snapshot
from qwen_aio.balancer.stats import News, StatsHistory

_NAMES: dict[type, str] = {
    StatsHistory: "history",
    Snapshot: "snapshot",
    Sample: "moment",
    RequestRow: "request",
    EventRow: "event",
}
_SHAPES: dict[type, TypeAdapter[Any]] = {kind: TypeAdapter(kind) for kind in _NAMES}


def to_json(news: News) -> bytes:
    """UTF-8, on one line."""
    return _SHAPES[type(news)].dump_json(news)


def frames(batch: Iterable[News]) -> bytes:
    """All of `batch` as it is sent."""
    return b"".join(b"event: %s\ndata: %s\n\n" % (_NAMES[type(news)].encode(), to_json(news)) for news in batch)
