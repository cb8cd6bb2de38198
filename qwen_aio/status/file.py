"""status.json: the records of all workers that share one folder.

The file is whole and valid at every instant: a writer takes the lock beside it, writes a temporary
file and renames it over the old one; a reader takes no lock. Which records are sound is known to
status/record.py, what follows from them to the readers.

The process that holds status.json.lock may write the file; the one that holds worker-<id>.lock owns
the id until it ends. Both are locks of the operating system and end with their process, however it
ends, so no process id, which may have been reused, has to be judged. They work on Linux, macOS and
Windows, but not on every network disk. A worker's last record stays in the file: it shows how that
process ended, and the next process counts on from its generation. The age that a record states
counts only until the record is seen to change: each machine has its own clock, and clocks are set.
"""

from __future__ import annotations

import json
import math
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from qwen_aio.errors import DuplicateWorker, StatusUnreadable, StatusUnwritable
from qwen_aio.status.record import LARGEST, WorkerStatus, read_status

WRITE_LIMIT = 20 * 1024  # bytes: about thirty workers; the oldest records give way
READ_LIMIT = 1024 * 1024  # bytes: no writer of ours makes a larger one
KEEP_S = 600.0  # without a change, by the clock of each writer
# Windows refuses to replace, or to open, a file that is open in another process.
REPLACE_ATTEMPTS, READ_ATTEMPTS, ATTEMPT_PAUSE_S = 40, 4, 0.005

_HEAD, _TAIL = '{"version": 1, "workers": {\n', "\n}}\n"
T = TypeVar("T")


def read_statuses(path: Path) -> dict[str, WorkerStatus]:
    """Every sound record by worker id; perhaps none. Takes no lock. Raises StatusUnreadable."""
    try:
        return _decode(_patiently(lambda: _content(path), attempts=READ_ATTEMPTS))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as exc:
        raise StatusUnreadable(f"{path} cannot be read: {exc}; a worker's next report replaces a damaged file") from exc


def utc_time(seconds: float) -> str:
    """`wall_time` of a record, e.g. 2026-01-01T00:00:00Z; `seconds` since 1970."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(eq=False)
class StatusFile:
    """The writing side. Blocks for up to `lock_timeout_s`: for one thread, off the event loop."""

    path: Path
    lock_timeout_s: float
    clock: Callable[[], float] = time.monotonic
    wall_clock: Callable[[], float] = time.time
    replace: Callable[[Path, Path], None] = os.replace

    def __post_init__(self) -> None:
        self._owned: dict[str, os.stat_result] = {}  # id -> the lock file that is held for it
        self._seen: dict[str, tuple[WorkerStatus, float]] = {}  # id -> last record, since when

    @contextmanager
    def claimed(self, worker_id: str, *, url: str) -> Iterator[WorkerStatus]:
        """Own `worker_id` while the context lasts; yields the first record ("starting").

        Raises DuplicateWorker if a live process owns the id, StatusUnwritable.
        """
        ownership = FileLock(self._lock_path(worker_id), thread_local=False, fallback_to_soft=False)
        try:
            yield self._claim(ownership, worker_id, url)
        finally:
            self._owned.pop(worker_id, None)
            ownership.release()

    def write(self, status: WorkerStatus) -> None:
        """Replace the worker's record by `status`. Other records stay, unless too old or unsound.

        Raises StatusUnwritable: locked for too long, disk full, folder unsafe, or another process
        owns the id by now.
        """
        with self._locked():
            statuses = self._current()
            if self._is_owned_by_another(status.id):
                raise StatusUnwritable(
                    f"worker {status.id} is another process by now ({_owner(statuses.get(status.id))}), since the "
                    f"folder was replaced; stop this one (pid {status.pid}, {status.url}), or give it another --id"
                )
            self._put(status, statuses)

    def _claim(self, ownership: FileLock, worker_id: str, url: str) -> WorkerStatus:
        # Taken inside the file's lock: the loser of a race finds the winner's record written.
        with self._locked():
            statuses = self._current()
            last = statuses.get(worker_id)
            try:
                ownership.acquire(blocking=False)
            except Timeout as exc:
                raise DuplicateWorker(
                    f"worker {worker_id} is already running ({_owner(last)}); stop it, "
                    "or name this one differently with --id",
                    param="id",
                ) from exc
            self._owned[worker_id] = self._lock_path(worker_id).stat()
            first = WorkerStatus(
                id=worker_id,
                url=url,
                pid=os.getpid(),
                start_time=round(self.wall_clock(), 3),
                generation=min(last.generation + 1, LARGEST) if last else 1,
                seq=1,
                state="starting",
                wall_time=utc_time(self.wall_clock()),
            )
            self._put(first, statuses)
            return first

    def _is_owned_by_another(self, worker_id: str) -> bool:
        """Whether another process has claimed the id, as it can in a folder that was made anew."""
        path = self._lock_path(worker_id)
        try:
            found = path.stat()
        except FileNotFoundError:
            return False
        if worker_id in self._owned and os.path.samestat(found, self._owned[worker_id]):
            return False
        try:
            with FileLock(path, blocking=False, fallback_to_soft=False):
                return False
        except Timeout:
            return True

    def _lock_path(self, worker_id: str) -> Path:
        return self.path.with_name(f"worker-{worker_id}.lock")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Holds status.json.lock; every failure of the disk inside becomes StatusUnwritable."""
        lock_path = self.path.with_name(f"{self.path.name}.lock")
        try:
            self._check_folder()
            # No fallback to a lock made of a mere file: it would outlast its owner.
            with FileLock(lock_path, timeout=self.lock_timeout_s, poll_interval=0.01, fallback_to_soft=False):
                yield
        except Timeout as exc:
            waited = f"{self.lock_timeout_s:g} s"
            raise StatusUnwritable(f"{lock_path} was held by another process for {waited}; is one stopped?") from exc
        except OSError as exc:
            raise StatusUnwritable(
                f"{self.path} cannot be written: {exc}; choose another folder with --status-dir or QWEN_AIO_HOME"
            ) from exc

    def _check_folder(self) -> None:
        folder = self.path.parent
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        if os.name == "posix" and folder.stat().st_mode & stat.S_IWOTH:
            raise StatusUnwritable(
                f"{folder} may be written by everybody, who could then send requests elsewhere; "
                f"run chmod o-w {folder} or choose another folder with --status-dir"
            )
        if self.path.is_symlink():
            raise StatusUnwritable(f"{self.path} is a symbolic link, which no worker makes; remove it")

    def _current(self) -> dict[str, WorkerStatus]:
        """The records in the file; none if it is damaged. Raises OSError, to erase no record."""
        try:
            return _decode(_content(self.path))
        except (FileNotFoundError, ValueError):
            return {}

    def _put(self, mine: WorkerStatus, statuses: Mapping[str, WorkerStatus]) -> None:
        others = self._fresh(status for status in statuses.values() if status.id != mine.id)
        temporary = self.path.with_name(f"{self.path.name}.tmp")
        temporary.unlink(missing_ok=True)  # left by a writer that was killed
        temporary.touch(mode=0o644, exist_ok=False)
        temporary.write_bytes(_encode(mine, others))
        # Not synced to the disk: no worker survives a power cut.
        _patiently(lambda: self.replace(temporary, self.path), attempts=REPLACE_ATTEMPTS)

    def _fresh(self, found: Iterable[WorkerStatus]) -> list[WorkerStatus]:
        """The records that have changed in the last ten minutes, the latest first."""
        now, since = self.clock(), {}
        for status in found:
            stated_age_s = max(self.wall_clock() - _seconds(status.wall_time), 0.0)
            last, stood_since = self._seen.get(status.id, (status, now - stated_age_s))
            since[status.id] = stood_since if status == last else now
            self._seen[status.id] = status, since[status.id]
        latest_first = sorted(since, key=since.__getitem__, reverse=True)
        return [self._seen[worker_id][0] for worker_id in latest_first if now - since[worker_id] < KEEP_S]


def _seconds(wall_time: str) -> float:
    try:
        return datetime.strptime(wall_time, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return -math.inf


def _owner(found: WorkerStatus | None) -> str:
    return f"pid {found.pid}, {found.url}" if found else "its record is missing"


def _patiently(action: Callable[[], T], *, attempts: int) -> T:
    """The result of `action`, retried while the file is open elsewhere. Raises PermissionError."""
    for _ in range(attempts - 1):
        try:
            return action()
        except PermissionError:
            time.sleep(ATTEMPT_PAUSE_S)
    return action()


def _content(path: Path) -> bytes:
    """All bytes of the file. Raises OSError; ValueError if no worker can have written it."""
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("it is not a plain file: remove it")
    if found.st_size > READ_LIMIT:
        raise ValueError(f"it has {found.st_size} bytes, more than {READ_LIMIT}")
    return path.read_bytes()


# ---- records and their JSON ----------------------------------------------------------------------


def _encode(mine: WorkerStatus, others: Iterable[WorkerStatus]) -> bytes:
    """One record a line, ordered by id. The last of `others` are dropped beyond WRITE_LIMIT."""
    lines: dict[str, str] = {}
    room = WRITE_LIMIT - len(_HEAD) - len(_TAIL)
    for status in (mine, *others):
        line = f"{json.dumps(status.id)}: {json.dumps(asdict(status), allow_nan=False)}"
        room -= len(line) + len(",\n")  # dumps gives ASCII: one byte a character
        if room < 0 and lines:
            break
        lines[status.id] = line
    return (_HEAD + ",\n".join(lines[worker_id] for worker_id in sorted(lines)) + _TAIL).encode("ascii")


def _decode(content: bytes) -> dict[str, WorkerStatus]:
    """Raises ValueError if this is not a table of workers at all."""
    try:
        table = json.loads(content)
    except RecursionError as exc:
        raise ValueError("it is nested too deeply") from exc
    workers = table.get("workers") if isinstance(table, dict) else None
    if not isinstance(workers, dict):
        raise ValueError("it holds no table of workers")
    statuses = {worker_id: read_status(entry) for worker_id, entry in workers.items()}
    return {status.id: status for worker_id, status in statuses.items() if status and status.id == worker_id}
