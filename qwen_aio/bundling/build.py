"""What a bundle holds, and where each file of it comes from."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qwen_aio import __version__
from qwen_aio.bundling.archive import Entry, write_archive
from qwen_aio.bundling.licences import Licence, licence_of, summary
from qwen_aio.bundling.model_files import BundledFolder, licence_of_bundled_model
from qwen_aio.bundling.own_wheel import LIBRARY, NAME
from qwen_aio.bundling.target import Target
from qwen_aio.bundling.wheel_file import WheelFile
from qwen_aio.errors import BundleFailed, InvalidModel
from qwen_aio.models.find import FULL_MODEL

TOP = Path(__file__).parent / "top"
DOORWAYS = ("app.py", "balancer.py")
PROMPTS = "qwen_aio/prompts/"
FOLDERS = ("models", "status")  # there even where nothing is in them


@dataclass(frozen=True)
class Bundle:
    """Everything for an installation of this version on `target`."""

    target: Target
    wheels: tuple[WheelFile, ...]
    models: tuple[BundledFolder, ...]

    @property
    def folder(self) -> str:
        return f"{NAME}-{__version__}"

    @property
    def has_library(self) -> bool:
        """Whether the native library is inside our wheel; without it a slower way is taken."""
        return self._own.has(LIBRARY)

    @property
    def licences(self) -> list[Licence]:
        """Raises InvalidModel."""
        models = (licence_of_bundled_model(), *(model.licence for model in self.models))
        return [*map(licence_of, self.wheels), *models]

    def write(self, path: Path) -> str:
        """The SHA-256 of the tar. Raises BundleFailed, InvalidModel."""
        licences = self.licences
        entries = [
            *(Entry(name, TOP / "doorway.py") for name in DOORWAYS),
            Entry("install.sh", self._script("install.sh"), is_program=True),
            Entry("install.ps1", _with_crlf(self._script("install.ps1"))),
            Entry("installer.py", TOP / "installer.py"),
            Entry("status/README.md", TOP / "status.md"),
            Entry("bundle.json", self._described()),
            Entry("requirements.txt", self._requirements()),
            *(Entry(f"prompts/{name}", content) for name, content in self._own.files(PROMPTS)),
            *(Entry(f"wheels/{wheel.path.name}", wheel.path) for wheel in self.wheels),
            *(Entry(f"licenses/{each.subject}.txt", str(each).encode()) for each in licences),
            Entry("licenses/SUMMARY.txt", summary(licences).encode()),
            *(entry for model in self.models for entry in model.entries),
        ]
        return write_archive(path, entries, top=self.folder, folders=FOLDERS)

    @property
    def _own(self) -> WheelFile:
        return next(wheel for wheel in self.wheels if wheel.name == NAME)

    def _script(self, name: str) -> bytes:
        """One that looks for the Python of this bundle first."""
        return (TOP / name).read_bytes().replace(b"@PYTHON@", self.target.python.encode())

    def _described(self) -> bytes:
        """What the installer has to know before it asks pip."""
        described = {
            "version": __version__,
            "python": self.target.python,
            "system": sys.platform,
            "machine": self.target.machine,
            "model": _model_to_name(self.models),
        }
        return (json.dumps(described, indent=1) + "\n").encode()

    def _requirements(self) -> bytes:
        lines = [f"{wheel.name}=={wheel.version} --hash=sha256:{_sha256_of(wheel.path)}\n" for wheel in self.wheels]
        return "".join(lines).encode()


def write_models(path: Path, models: Sequence[BundledFolder]) -> str:
    """A tar of model folders alone, each with its manifest.json; its SHA-256. Raises BundleFailed."""
    return write_archive(path, [entry for model in models for entry in model.entries])


def check_names(models: Sequence[BundledFolder]) -> None:
    """Raises InvalidModel where two would lie in one folder."""
    names = [model.name for model in models]
    if twice := {name for name in names if names.count(name) > 1}:
        raise InvalidModel(f"two models would lie in models/{min(twice)}; rename the folder of one")


def _model_to_name(models: Sequence[BundledFolder]) -> str | None:
    """The folder that a start has to name, if any: one model is taken by itself, and the bundled one is."""
    if not models or any(model.name == FULL_MODEL for model in models):
        return None
    return f"models/{models[0].name}"


def _with_crlf(content: bytes) -> bytes:
    """For editors of Windows; PowerShell reads either. With a mark, so that it is read as UTF-8."""
    return b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n")


def _sha256_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as exc:
        raise BundleFailed(f"{path} cannot be read: {exc.strerror}") from exc
