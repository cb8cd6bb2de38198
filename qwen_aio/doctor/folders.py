"""The folders that a start writes to, and the room on their disk."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from qwen_aio.doctor.finding import Finding
from qwen_aio.machine.memory import MIB

LEAST_MB = 1  # for status.json and its like
ELSEWHERE = "choose another with --status-dir or QWEN_AIO_HOME"


@dataclass(frozen=True)
class FolderState:
    """A folder, or where it would be made; `refusal` is why this user cannot write there."""

    path: Path
    free_mb: int
    refusal: str = ""
    is_open_to_all: bool = False


def status_findings(folder: FolderState) -> list[Finding]:
    """Of the folder that workers and balancer share: without it there is no start."""
    if folder.refusal:
        found = f"{folder.path} cannot be written: {folder.refusal}"
        return [Finding("problem", found, f"let this user write there, or {ELSEWHERE}")]
    if folder.is_open_to_all:
        found = f"{folder.path} may be written by everybody, who could then send requests elsewhere"
        return [Finding("problem", found, f"chmod o-w {folder.path}")]
    if folder.free_mb < LEAST_MB:
        return [Finding("problem", f"the disk of {folder.path} is full", f"make room, or {ELSEWHERE}")]
    return [Finding("ok", f"{folder.path} can be written, {folder.free_mb} MB are free")]


def state_findings(folder: FolderState, *, needed_mb: int) -> list[Finding]:
    """Of the folder of records, without which every start is slower. `needed_mb`: for the int8 weights."""
    if folder.refusal:
        found = f"{folder.path} cannot be written ({folder.refusal}): every start compares and quantises anew"
        return [Finding("note", found, "let this user write there, or set QWEN_AIO_HOME")]
    if folder.free_mb < needed_mb:
        found = f"{folder.path} has room for {folder.free_mb} MB, and the int8 weights take {needed_mb}"
        return [Finding("note", found, "make room there: without it, every start quantises anew")]
    return [Finding("ok", f"{folder.path} can be written, {folder.free_mb} MB are free")]


def read_folder(path: Path) -> FolderState:
    """Tries to write, and leaves nothing. Raises OSError where the disk cannot be asked."""
    nearest = next(place for place in (path, *path.absolute().parents) if place.exists())
    is_open = os.name == "posix" and path.is_dir() and bool(path.stat().st_mode & stat.S_IWOTH)
    free_mb = shutil.disk_usage(nearest).free // MIB
    return FolderState(path, free_mb, _why_unwritable(nearest), is_open)


def _why_unwritable(folder: Path) -> str:
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as exc:
        return exc.strerror or str(exc)
    locks = [lock.name for lock in folder.glob("*.lock") if not os.access(lock, os.W_OK)]
    return f"{locks[0]} belongs to another user" if locks else ""
