"""Hashes of large files, remembered by size and time of change: a start need not read gigabytes to know a model.

As git's index does. Who changes a file and sets its time back is not noticed; `qwen-aio models verify`
reads every byte. The file may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from qwen_aio.files import read_text, replacing

PIECE = 2**24  # bytes read at once: a thread waits for the others after each
LARGE = 2**24  # bytes; smaller files are always read
SETTLED_NS = 2 * 10**9  # a file changed since then may change again within the same tick of its clock
Known = Mapping[str, list[object]]  # path -> size, time of change in ns, inode, hash
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class KnownHashes:
    """A file of hashes; None remembers nothing."""

    path: Path | None = None

    def digest(self, file: Path) -> bytes:
        """SHA-256 of `file`. Raises OSError."""
        before = file.stat()
        if self.path is None or before.st_size < LARGE:
            return _digest(file)
        mark = _mark(before)
        match self._read().get(str(file.resolve())):
            case [*known, str(found)] if known == mark:
                with suppress(ValueError):
                    return bytes.fromhex(found)
        digest = _digest(file)
        if _mark(file.stat()) == mark and time.time_ns() - before.st_mtime_ns > SETTLED_NS:
            self._remember(str(file.resolve()), [*mark, digest.hex()])
        return digest

    def _read(self) -> Known:
        assert self.path is not None
        try:
            known = json.loads(read_text(self.path))
        except (OSError, ValueError, RecursionError):
            return {}
        return known if isinstance(known, dict) else {}

    def _remember(self, file: str, entry: list[object]) -> None:
        """Beside those of files that are still there."""
        assert self.path is not None
        kept = {name: old for name, old in self._read().items() if Path(name).is_file()}
        try:
            with replacing(self.path) as partial:
                partial.write_text(json.dumps({**kept, file: entry}, indent=1), encoding="utf-8")
        except OSError as exc:
            logger.info("the hash of %s is not remembered: %s", file, exc)


def _mark(stat: os.stat_result) -> list[object]:
    return [stat.st_size, stat.st_mtime_ns, stat.st_ino]


def _digest(file: Path) -> bytes:
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while piece := opened.read(PIECE):
            digest.update(piece)
    return digest.digest()
