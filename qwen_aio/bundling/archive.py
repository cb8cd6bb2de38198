"""A tar whose bytes depend on names and contents alone, and which appears whole or not at all."""

from __future__ import annotations

import hashlib
import io
import os
import re
import tarfile
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from qwen_aio.bundling.own_wheel import EPOCH
from qwen_aio.errors import BundleFailed
from qwen_aio.files import replacing

MANIFEST = "MANIFEST"  # lines of sha256sum; its last file, so that it lists what was really written
_PART = "[A-Za-z0-9_][A-Za-z0-9._+-]*"
_PLAIN_PATH = re.compile(f"{_PART}(/{_PART})*")  # the installer refuses all others


@dataclass(frozen=True)
class Entry:
    """A file in the tar: its path there, and where it comes from, or its content."""

    path: str
    source: Path | bytes
    is_program: bool = False


def write_archive(target: Path, entries: Iterable[Entry], *, top: str = "", folders: Iterable[str] = ()) -> str:
    """Write all to `target`, below `top` if given; the SHA-256 of the tar. `folders` may stay empty.

    With `top` a manifest is added. Raises BundleFailed.
    """
    entries = sorted(entries, key=lambda entry: entry.path)
    if odd := [entry.path for entry in entries if not _PLAIN_PATH.fullmatch(entry.path)]:
        raise BundleFailed(f"{odd[0]!r} is no name that an installer takes: plain letters, digits, and . _ + - alone")
    try:
        with replacing(target) as partial:
            with partial.open("wb") as writing:
                with tarfile.open(fileobj=writing, mode="w", format=tarfile.PAX_FORMAT) as archive:
                    _write(archive, entries, top, folders)
                writing.flush()
                os.fsync(writing.fileno())
            with partial.open("rb") as reading:
                return hashlib.file_digest(reading, "sha256").hexdigest()
    except OSError as exc:
        raise BundleFailed(f"{target} cannot be written: {exc}") from exc


def _write(archive: tarfile.TarFile, entries: list[Entry], top: str, folders: Iterable[str]) -> None:
    names = [str(PurePosixPath(top, entry.path)) for entry in entries]
    for folder in sorted({*_folders_of(names), *(str(PurePosixPath(top, name)) for name in folders)}):
        archive.addfile(_member(folder, tarfile.DIRTYPE, mode=0o755))
    lines = []
    for entry, name in zip(entries, names, strict=True):
        lines.append(f"{_add(archive, name, entry)}  {entry.path}\n")
    if top:
        _add(archive, f"{top}/{MANIFEST}", Entry(MANIFEST, "".join(lines).encode()))


def _folders_of(names: Iterable[str]) -> set[str]:
    return {str(parent) for name in names for parent in PurePosixPath(name).parents} - {"."}


def _add(archive: tarfile.TarFile, name: str, entry: Entry) -> str:
    """The SHA-256 of what was written."""
    member = _member(name, tarfile.REGTYPE, mode=0o755 if entry.is_program else 0o644)
    with ExitStack() as opened:
        if isinstance(entry.source, bytes):
            file: IO[bytes] = io.BytesIO(entry.source)
            member.size = len(entry.source)
        else:
            file = opened.enter_context(entry.source.open("rb"))
            member.size = os.fstat(file.fileno()).st_size
        reader = _HashingReader(file)
        archive.addfile(member, reader)
    return reader.digest.hexdigest()


class _HashingReader:
    """Passes on what is read, and hashes it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(size)
        self.digest.update(content)
        return content


def _member(name: str, kind: bytes, *, mode: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.mode, member.mtime = kind, mode, EPOCH
    return member
