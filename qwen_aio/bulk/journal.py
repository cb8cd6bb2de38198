"""The output of a long run, and a journal beside it from which a killed run goes on.

The journal says how many rows are done and how many bytes of the output they take. It is replaced as a
whole after the output has reached the disk, so what it says is always true; what stands behind those
bytes is cut off when the run goes on. No row is lost, and none is there twice.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from qwen_aio.errors import InvalidSettings
from qwen_aio.files import replacing

CHECKPOINT_S = 1.0


@dataclass
class Progress:
    """How far a run has come: rows written, the bytes they take, and what came out, by name."""

    rows: int = 0
    num_bytes: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)


class Journal:
    """The output `path` of one run, open for writing."""

    def __init__(
        self, path: Path, file: BinaryIO, about: dict[str, str], progress: Progress, clock: Callable[[], float]
    ) -> None:
        self.progress = progress
        self._path = path
        self._file = file
        self._about = about
        self._clock = clock
        self._saved_at = clock()

    def write(self, line: str, outcome: str | None = None) -> None:
        """Append `line`, which is a row if it has an outcome; a checkpoint where it is time for one."""
        data = line.encode()
        with _told(self._path):
            self._file.write(data)
        self.progress.num_bytes += len(data)
        if outcome is not None:
            self.progress.rows += 1
            self.progress.outcomes[outcome] += 1
        if self._clock() - self._saved_at >= CHECKPOINT_S:
            self.save()

    def save(self) -> None:
        """A checkpoint. Raises InvalidSettings, as on a full disk."""
        self._sync()
        progress = self.progress
        record = {"about": self._about, "rows": progress.rows, "bytes": progress.num_bytes}
        with _told(self._path), replacing(journal_of(self._path)) as partial:
            partial.write_text(json.dumps(record | {"outcomes": progress.outcomes}), encoding="utf-8")
        self._saved_at = self._clock()

    def finish(self) -> None:
        """The run is whole; there is nothing to go on with."""
        self._sync()
        journal_of(self._path).unlink(missing_ok=True)

    def _sync(self) -> None:
        with _told(self._path):
            self._file.flush()
            os.fsync(self._file.fileno())


@contextmanager
def journal(path: Path, about: dict[str, str], *, clock: Callable[[], float] = time.monotonic) -> Iterator[Journal]:
    """The output at `path`, new or gone on with; saved at the end, whatever happens.

    `about` names the run: file, task, model. Raises InvalidSettings if `path` belongs to another run
    or to one that is still going on.
    """
    with _locked(path):
        progress = _begun(path, about)
        with _told(path):
            file = path.open("r+b" if path.exists() else "w+b")
        with file:
            file.truncate(progress.num_bytes)
            file.seek(0, os.SEEK_END)
            output = Journal(path, file, about, progress, clock)
            output.save()  # the output is this run's from its first byte on
            try:
                yield output
            except BaseException:
                output.save()
                raise
            output.finish()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Nobody else writes `path` meanwhile. Raises InvalidSettings if somebody does."""
    lock = FileLock(f"{path}.lock", timeout=0)
    try:
        with _told(path):
            lock.acquire()
    except Timeout as exc:
        raise InvalidSettings(f"another run is writing {path}") from exc
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """What the system says about writing `path` becomes InvalidSettings."""
    try:
        yield
    except Timeout:
        raise
    except OSError as exc:
        raise InvalidSettings(f"{path} cannot be written: {exc.strerror}") from exc


def journal_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.journal")


def _begun(path: Path, about: dict[str, str]) -> Progress:
    """How far the run of `about` came. Raises InvalidSettings if the output is another run's, or somebody's."""
    record = _read(journal_of(path))
    if record is None:
        if path.exists() and path.stat().st_size:
            raise InvalidSettings(f"{path} is there already; remove it or choose another -o")
        return Progress()
    found, progress = record
    different = sorted(name for name in about.keys() | found.keys() if about.get(name) != found.get(name))
    if different:
        raise InvalidSettings(
            f"{path} was begun with another {' and another '.join(different)}; remove it and {journal_of(path).name},"
            " or choose another -o"
        )
    if not path.exists() or path.stat().st_size < progress.num_bytes:
        raise InvalidSettings(f"{path} is shorter than its journal says; remove {journal_of(path).name} to begin anew")
    return progress


def _read(path: Path) -> tuple[dict[str, str], Progress] | None:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        return raw["about"], Progress(raw["rows"], raw["bytes"], Counter(raw["outcomes"]))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as exc:
        raise InvalidSettings(f"{path} is damaged; remove it and its output to begin anew") from exc
