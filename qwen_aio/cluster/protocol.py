"""What a cluster and its fork server send each other: lines of JSON over a socket of their own.

cluster -> fork server    WorkerSpec, and with it the file that the worker writes its log to
fork server -> cluster    WeightsLoaded once, then Started and Ended of one worker after another
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True)
class WorkerSpec:
    """A worker to be started. Its other settings are those of all workers."""

    id: str
    port: int
    threads: int
    changes: Mapping[str, str | int] = field(default_factory=dict)  # of settings that others share

    @property
    def settings(self) -> dict[str, str | int]:
        """The settings of this worker alone."""
        return {"id": self.id, "port": self.port, "threads": self.threads, **self.changes}


@dataclass(frozen=True)
class WeightsLoaded:
    """The weights are in memory; workers can be forked."""


@dataclass(frozen=True)
class Started:
    """The worker `id` is this process."""

    id: str
    pid: int


@dataclass(frozen=True)
class Ended:
    """`status` is an exit status, or a signal's number made negative."""

    pid: int
    status: int


ForkMessage = WorkerSpec | WeightsLoaded | Started | Ended
KINDS: dict[str, type[ForkMessage]] = {kind.__name__: kind for kind in (WorkerSpec, WeightsLoaded, Started, Ended)}


def encode(message: ForkMessage) -> bytes:
    """One line."""
    return json.dumps([type(message).__name__, asdict(message)]).encode() + b"\n"


class Messages:
    """Bytes, cut anywhere, -> messages."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> Iterator[ForkMessage]:
        """The messages that `chunk` completes."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            kind, fields = json.loads(line)
            yield KINDS[kind](**fields)
