"""manifest.json in a model folder: where the model came from, and size and hash of every file as it arrived."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from qwen_aio.errors import InvalidModel
from qwen_aio.files import read_text

MANIFEST = "manifest.json"

PLAIN_NAME = "^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$"  # of a file; leads out of no folder
PlainName = Annotated[str, Field(pattern=PLAIN_NAME)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Commit = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]


class FileRecord(BaseModel):
    """A file as it arrived."""

    model_config = ConfigDict(frozen=True)

    size: int
    sha256: Sha256


class Manifest(BaseModel):
    """What is known of a model folder. `hub_name`, `revision` and `commit` are None unless a hub gave it."""

    model_config = ConfigDict(frozen=True)

    version: Literal[1] = 1
    source: str  # a page at a hub, or a path on this machine
    recorded_at: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    files: Mapping[PlainName, FileRecord]
    hub_name: str | None = None
    revision: str | None = None  # as it was asked for
    commit: Commit | None = None
    licence: str | None = None

    def write(self, folder: Path) -> None:
        """Raises OSError."""
        (folder / MANIFEST).write_text(self.model_dump_json(indent=1, exclude_none=True) + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest in `folder`; None without one. Raises InvalidModel for one that is damaged."""
    path = folder / MANIFEST
    try:
        return Manifest.model_validate_json(read_text(path))
    except FileNotFoundError:
        return None
    except ValidationError as exc:
        raise InvalidModel(f"{path} is damaged: {_first_error(exc)}") from exc
    except (OSError, ValueError) as exc:
        raise InvalidModel(f"{path} cannot be read: {exc}") from exc


def recorded_files(folder: Path, names: Iterable[str] | None = None) -> dict[str, FileRecord]:
    """Every file in `folder`, or those of `names`, as they are now, by name. Raises OSError."""
    return {
        name: FileRecord(size=(folder / name).stat().st_size, sha256=_sha256(folder / name))
        for name in sorted(_names(folder) if names is None else names)
    }


def differences(folder: Path, manifest: Manifest) -> tuple[str, ...]:
    """What in `folder` is not as recorded, a line each; reads every file. Raises OSError."""
    names = _names(folder)
    wrong = [line for name, record in manifest.files.items() if (line := _difference(folder / name, record))]
    added = [f"{name} was added" for name in sorted(names - manifest.files.keys())]
    return (*wrong, *added)


def _difference(path: Path, record: FileRecord) -> str | None:
    if not path.is_file():
        return f"{path.name} is missing"
    if (size := path.stat().st_size) != record.size:
        return f"{path.name} is wrong: it has {size} bytes, {record.size} are recorded"
    if (found := _sha256(path)) != record.sha256:
        return f"{path.name} is wrong: its SHA-256 is {found}, {record.sha256} is recorded"
    return None


def _names(folder: Path) -> set[str]:
    """Of everything but the manifest, and but what file managers hide there."""
    return {path.name for path in folder.iterdir() if path.name[0] != "."} - {MANIFEST}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _first_error(exc: ValidationError) -> str:
    error = exc.errors()[0]
    return f"{'.'.join(map(str, error['loc'])) or 'the file'}: {error['msg'].lower()}"
