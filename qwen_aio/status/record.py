"""A worker's record: what /health shows, status.json keeps and the balancer's /status repeats.

A metric is a field of `WorkerStatus`. Its type says how it is read from JSON, which anybody may
have written, so no reader and no writer names it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_type_hints

LARGEST = 2**53  # beyond it JavaScript changes an integer's value

Count = Literal["safety_replies", "openings_refused", "openings_replaced", "answers_stopped"]
WorkerState = Literal["starting", "ready", "draining", "failed"]


@dataclass(frozen=True)
class WorkerStatus:
    """One worker's record in status.json."""

    id: str
    """Its id."""
    url: str
    """Where it listens."""
    pid: int
    """Its process."""
    start_time: float
    """Seconds since 1970."""
    generation: int
    """One more than in the id's last process."""
    seq: int
    """One more with every report: a reader judges age by when this last changed."""
    state: WorkerState
    """What it is doing."""
    queue_depth: int = 0
    """Requests that wait for the engine."""
    running: int = 0
    """Sequences being computed."""
    capacity: int = 0
    """Sequences that can be computed at once."""
    completed: int = 0
    """Requests finished since it was ready."""
    latency_ms_last5: tuple[float, ...] = ()
    """Of the last five requests, without the time in the queue."""
    latency_ms_mean5: float | None = None
    """Their mean."""
    ttft_ms_mean5: float | None = None
    """Until the first token of the last five answers, mean."""
    slow_ms: float | None = None
    """Mean of five: total of a decision, first token of an answer."""
    tokens_per_second: float = 0.0
    """Of all answers, since the last record."""
    cpu_percent: float = 0.0
    """Of this process, divided by its threads."""
    cpu_jitter: float = 0.0
    """Standard deviation of the last ten CPU readings, percent points."""
    rss_mb: float = 0.0
    """Resident memory."""
    kv_mb: int = 0
    """Memory for keys and values."""
    model: str = ""
    """The name of the model."""
    model_sha: str = ""
    """The hash of the model."""
    precision: str = ""
    """Of the weights, as Precision; empty while they are being loaded."""
    kernel: str = ""
    """What computes the model's forward pass: avx512, avx2, dotprod, plain or torch; empty while it is being loaded."""
    tasks_sha: str = ""
    """The hash of all tasks."""
    wall_time: str = ""
    """When the record was made, UTC."""
    safety_replies: int = 0
    """Fixed answers to messages that show danger."""
    openings_refused: int = 0
    """First sentences of answers that did not fit."""
    openings_replaced: int = 0
    """Answers whose second draw did not fit either."""
    answers_stopped: int = 0
    """Before a later sentence that did not fit."""
    egress_refused: int | None = None
    """Attempts to reach another machine that were refused since its process started; None with --no-offline."""
    golden: dict[str, str] = field(default_factory=dict)
    """Task -> outcome of its golden cases."""

    @property
    def process(self) -> tuple[str, int, float, int]:
        """The identity of the process that wrote it."""
        return self.id, self.pid, self.start_time, self.generation


def read_status(entry: object) -> WorkerStatus | None:
    """The record in parsed JSON; None without a valid identity, address and state.

    Unknown fields are ignored, invalid numbers are clamped.
    """
    if not isinstance(entry, dict) or not _is_sound(entry):
        return None
    return WorkerStatus(**{name: read(entry.get(name)) for name, read in _READERS.items()})


def _is_sound(entry: dict[str, Any]) -> bool:
    numbers = [entry.get(name) for name in ("pid", "generation", "seq")]
    is_identified = _is_text(entry.get("id")) and all(
        type(number) is int and 0 <= number <= LARGEST for number in numbers
    )
    has_url = _is_text(entry.get("url")) and entry["url"].startswith(("http://", "https://"))
    return is_identified and has_url and entry.get("state") in get_args(WorkerState)


def _number(value: object) -> float | None:
    """`value` clamped to 0 .. LARGEST; None if it is not a number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        return None
    return float(min(max(value, 0), LARGEST))


def _amount(value: object) -> float:
    return _number(value) or 0.0


def _is_text(value: object) -> bool:
    """A string that can be sent on: a lone surrogate, which JSON allows, could not be encoded."""
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)


def _texts(value: object) -> dict[str, str]:
    return {name: text for name, text in value.items() if _is_text(text)} if isinstance(value, dict) else {}


_READERS_BY_TYPE: dict[object, Callable[[Any], Any]] = {
    int: lambda value: int(_amount(value)),
    float: _amount,
    float | None: _number,
    int | None: lambda value: None if _number(value) is None else int(_amount(value)),
    str: lambda value: value if _is_text(value) else "",
    WorkerState: str,
    tuple[float, ...]: lambda value: tuple(map(_amount, value[-5:])) if isinstance(value, list) else (),
    dict[str, str]: _texts,
}
_READERS = {name: _READERS_BY_TYPE[type_] for name, type_ in get_type_hints(WorkerStatus).items()}
