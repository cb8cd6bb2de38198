"""The licences of what a bundle holds: one file for each package and model, and a summary."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from qwen_aio.bundling.wheel_file import WheelFile

_LICENCE_FILE = re.compile(r"(?i)(licen[cs]e|copying|notice|authors|copyright)[^/]*")
_CLASSIFIER = "License :: "
_NOT_STATED = ("", "unknown", "license.txt", "license")
LONGEST_NAME = 80  # some packages put the whole text into the field for its name


@dataclass(frozen=True)
class Licence:
    """Of one package or model: its name as stated, and the texts that came with it, by file name."""

    subject: str  # name-version
    stated: str | None
    texts: tuple[tuple[str, str], ...]

    @property
    def is_known(self) -> bool:
        return self.stated is not None or bool(self.texts)

    def __str__(self) -> str:
        """What the file of this licence says."""
        parts = [f"{self.subject}\nlicence: {self.stated or 'not stated by name'}\n"]
        parts += [f"---- {name} ----\n\n{text.rstrip()}\n" for name, text in self.texts]
        return "\n".join(parts)


def licence_of(wheel: WheelFile) -> Licence:
    """What the wheel says in its metadata, and the files of its licence."""
    listed = {PurePosixPath(name).name for name in wheel.metadata.get_all("License-File", [])}
    texts = []
    for name, content in wheel.files():
        folder, _, inner = name.partition("/")
        file = PurePosixPath(inner)
        if folder.endswith(".dist-info") and (
            file.parts[0] in ("licenses", "license_files") or file.name in listed or _LICENCE_FILE.fullmatch(inner)
        ):
            texts.append((inner, content.decode("utf-8", "replace")))
    return Licence(f"{wheel.name}-{wheel.version}", _stated(wheel), tuple(texts))


def _stated(wheel: WheelFile) -> str | None:
    """SPDX expression, the old field, or classifiers: the first that says something."""
    metadata = wheel.metadata
    for field in ("License-Expression", "License"):
        lines = str(metadata.get(field, "")).strip().splitlines()
        if lines and len(lines[0]) <= LONGEST_NAME and lines[0].lower() not in _NOT_STATED:
            return lines[0]
    classifiers = [line for line in map(str, metadata.get_all("Classifier", [])) if line.startswith(_CLASSIFIER)]
    return "; ".join(line.rpartition(" :: ")[2] for line in classifiers) or None


def summary(licences: Iterable[Licence]) -> str:
    """A line each, and first those of which nothing is known."""
    known = sorted(licences, key=lambda licence: licence.subject)
    unknown = [licence.subject for licence in known if not licence.is_known]
    head = [f"NO LICENCE INFORMATION came with {subject}" for subject in unknown] or ["All packages state a licence."]
    lines = [f"{each.subject}: {each.stated or ('see its file' if each.texts else 'unknown')}" for each in known]
    return "\n".join((*head, "", *lines)) + "\n"
