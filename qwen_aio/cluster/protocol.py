"""What a cluster and its nursery say to each other: lines of JSON over a socket of their own.

cluster -> nursery    Wanted, and with it the file that the worker writes its log to
nursery -> cluster    Loaded once, then Born and Ended, of one worker after another
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class WorkerSpec:
    """A worker to be forked."""

    id: str
    port: int
    threads: int
    changes: tuple[tuple[str, str | int], ...] = ()  # settings in which it differs from its nursery


@dataclass(frozen=True)
class WeightsLoaded:
    """The weights are in memory; workers can be had."""


@dataclass(frozen=True)
class Started:
    """The worker that was wanted is this process."""

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
