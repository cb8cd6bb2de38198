"""One wheel: its name, and what it says of itself. Nothing of it is imported or run."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesParser
from functools import cached_property
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.tags import Tag
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from qwen_aio.errors import BundleFailed


@dataclass(frozen=True)
class WheelFile:
    """A file NAME-VERSION-TAGS.whl."""

    path: Path
    name: str  # as pip compares names: small letters and dashes
    version: str
    tags: frozenset[Tag]

    @classmethod
    def open(cls, path: Path) -> WheelFile:
        """Raises BundleFailed for what is no wheel."""
        try:
            name, version, _, tags = parse_wheel_filename(path.name)
            wheel = cls(path, name, str(version), tags)
            wheel.metadata  # noqa: B018  read to be checked
        except (InvalidWheelFilename, zipfile.BadZipFile, StopIteration) as exc:
            raise BundleFailed(f"{path} is no wheel, or damaged: {exc}") from exc
        except OSError as exc:
            raise BundleFailed(f"{path} cannot be read: {exc.strerror}") from exc
        return wheel

    @cached_property
    def metadata(self) -> Message:
        with zipfile.ZipFile(self.path) as archive:
            name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
            return BytesParser().parsebytes(archive.read(name))

    @cached_property
    def requirements(self) -> tuple[Requirement, ...]:
        """Raises BundleFailed."""
        try:
            return tuple(map(Requirement, self.metadata.get_all("Requires-Dist", [])))
        except InvalidRequirement as exc:
            raise BundleFailed(f"{self.path.name} requires something that cannot be read: {exc}") from exc

    def files(self, prefix: str = "") -> Iterator[tuple[str, bytes]]:
        """Name behind `prefix` and content of every file that begins with it, sorted."""
        with zipfile.ZipFile(self.path) as archive:
            for name in sorted(archive.namelist()):
                if name.startswith(prefix) and not name.endswith("/"):
                    yield name.removeprefix(prefix), archive.read(name)

    def has(self, name: str) -> bool:
        with zipfile.ZipFile(self.path) as archive:
            return name in archive.namelist()

    def requirement(self, name: str) -> Requirement | None:
        """What it requires of the package `name`, if anything."""
        return next((each for each in self.requirements if canonicalize_name(each.name) == name), None)
