"""A file that arrives in pieces, in several connections and runs, and is hashed as it does."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import TracebackType

from qwen_aio.errors import HubRefused
from qwen_aio.models.known_hashes import PIECE
from qwen_aio.models.listing import HubFile
from qwen_aio.models.manifest import FileRecord


class PartialFile:
    """What is there of a file at `path`; open from the start, a context manager to close it."""

    def __init__(self, path: Path, expected: HubFile) -> None:
        """Reads what earlier runs left. Raises OSError."""
        self._expected = expected
        self._file = path.open("a+b")
        self._begin()
        self._file.seek(0)
        while piece := self._file.read(PIECE):
            self._count(piece)
        if self.length > expected.size:
            self.restart()

    def __enter__(self) -> PartialFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._file.close()

    @property
    def is_whole(self) -> bool:
        return self.length == self._expected.size

    def write(self, piece: bytes) -> None:
        """Append. Raises HubRefused for more bytes than are listed, OSError."""
        if self.length + len(piece) > self._expected.size:
            raise HubRefused(f"{self._expected.name} has more bytes than the {self._expected.size} that the hub lists")
        self._file.write(piece)
        self._count(piece)

    def restart(self) -> None:
        """Drop everything that is there. Raises OSError."""
        self._file.truncate(0)
        self._begin()

    def check(self) -> FileRecord:
        """What the whole file is. Raises HubRefused if the hub lists another hash; then nothing is left of it."""
        found, git = self._sha256.hexdigest(), self._git_sha1.hexdigest()
        expected = self._expected
        if expected.sha256 not in (None, found) or (expected.sha256 is None and expected.git_sha1 != git):
            self.restart()
            hashes = (
                f"SHA-256 {found}, listed {expected.sha256}"
                if expected.sha256
                else f"git {git}, listed {expected.git_sha1}"
            )
            raise HubRefused(
                f"{expected.name} is not the file that the hub lists ({hashes}): it was changed on the way, or on this"
                " disk; the same command fetches this file anew"
            )
        return FileRecord(size=self.length, sha256=found)

    def _begin(self) -> None:
        self.length = 0
        self._sha256 = hashlib.sha256()
        self._git_sha1 = hashlib.sha1(b"blob %d\0" % self._expected.size, usedforsecurity=False)

    def _count(self, piece: bytes) -> None:
        self.length += len(piece)
        self._sha256.update(piece)
        if self._expected.sha256 is None:
            self._git_sha1.update(piece)
