"""The wheel of qwen_aio itself: a given one, built from the checkout, or packed again from what is installed."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
import zipfile
from importlib.metadata import Distribution, PackageNotFoundError, PackagePath, distribution
from pathlib import Path

from qwen_aio import __version__
from qwen_aio.bundling.target import Target
from qwen_aio.bundling.wheel_file import WheelFile
from qwen_aio.bundling.wheels import run_pip
from qwen_aio.errors import BundleFailed, InvalidSettings
from qwen_aio.machine.folders import PACKAGE

NAME = "qwen-aio"
LIBRARY = "qwen_aio/engine/native/libqwen_aio.so"
EPOCH = 946_684_800  # 2000-01-01: times of files would make two bundles of the same content differ
OF_INSTALLERS = ("INSTALLER", "REQUESTED", "direct_url.json", "RECORD")  # in dist-info, written by pip
REBUILD = "build it with `pip wheel --no-deps DIR` from a checkout or a source archive, and give it with --wheel FILE"


def own_wheel(given: Path | None, target: Target, into: Path) -> WheelFile:
    """A wheel of this version for `target`; one that is made lies in `into`. Raises BundleFailed, InvalidSettings."""
    if given is None and not target.is_here:
        raise InvalidSettings(
            f"the native library of qwen_aio cannot be compiled here for {target}; there, {REBUILD}",
            param="wheel",
        )
    wheel = WheelFile.open(given or _made(into))
    if (wheel.name, wheel.version) != (NAME, __version__):
        raise InvalidSettings(f"{wheel.path} is {wheel.name} {wheel.version}, and this is {NAME} {__version__}")
    if not target.takes(wheel.tags):
        raise InvalidSettings(f"{wheel.path} is for {', '.join(sorted(map(str, wheel.tags)))}, not for {target}")
    return wheel


def _made(into: Path) -> Path:
    checkout = PACKAGE.parent
    if (checkout / "pyproject.toml").is_file():
        environment = os.environ | {"SOURCE_DATE_EPOCH": str(EPOCH)}
        if not run_pip(
            "wheel", "--quiet", "--no-deps", "--wheel-dir", str(into), str(checkout), environment=environment
        ):
            raise BundleFailed("the wheel of qwen_aio could not be built; what pip printed says why")
        return next(into.glob("qwen_aio-*.whl"))
    try:
        return repacked(distribution(NAME), into)
    except PackageNotFoundError as exc:
        raise BundleFailed(f"qwen_aio is not installed as a package here; {REBUILD}") from exc


def repacked(installed: Distribution, into: Path) -> Path:
    """The wheel that pip installed, made again of its files. Raises BundleFailed for files that were changed."""
    files = [file for file in installed.files or () if _is_of_wheel(file)]
    described = [
        line.removeprefix("Tag: ") for line in _text(installed, "WHEEL").splitlines() if line.startswith("Tag: ")
    ]
    if not files or not described:
        raise BundleFailed(f"the list of the installed files of qwen_aio is missing; {REBUILD}")
    path = into / f"qwen_aio-{installed.version}-{described[0]}.whl"
    record = io.StringIO()
    rows = csv.writer(record, lineterminator="\n")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(files):
            content = _content(file)
            archive.writestr(zipfile.ZipInfo(str(file)), content, compress_type=zipfile.ZIP_DEFLATED)
            rows.writerow((str(file), f"sha256={_urlsafe(content)}", len(content)))
        name = f"qwen_aio-{installed.version}.dist-info/RECORD"
        rows.writerow((name, "", ""))
        archive.writestr(zipfile.ZipInfo(name), record.getvalue())
    return path


def _is_of_wheel(file: PackagePath) -> bool:
    return ".." not in file.parts and "__pycache__" not in file.parts and file.name not in OF_INSTALLERS


def _content(file: PackagePath) -> bytes:
    try:
        content = Path(str(file.locate())).read_bytes()
    except OSError as exc:
        raise BundleFailed(f"{exc.filename} cannot be read ({exc.strerror}), so {REBUILD}") from exc
    if file.hash is None or file.hash.value != _urlsafe(content):
        raise BundleFailed(f"{file.locate()} is not as it was installed; install qwen_aio again, or {REBUILD}")
    return content


def _urlsafe(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()


def _text(installed: Distribution, name: str) -> str:
    return installed.read_text(name) or ""
