"""Where the files of this installation are."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from qwen_aio.errors import InvalidSettings

PACKAGE = Path(__file__).resolve().parent.parent


def home() -> Path:
    """Parent of status/, models/, state/: $QWEN_AIO_HOME, the checkout, the bundle, or the user's data folder.

    Raises InvalidSettings if there is none of them.
    """
    if from_environment := os.environ.get("QWEN_AIO_HOME"):
        return expanded(from_environment)
    checkout = PACKAGE.parent
    if (checkout / "pyproject.toml").is_file():
        return checkout
    return bundle_around(PACKAGE) or _user_data_folder() / "qwen_aio"


def bundle_around(package: Path) -> Path | None:
    """The folder of the bundle that this package was installed from, into `.venv` there; None for another one."""
    folder = next((place.parent for place in package.parents if place.name == ".venv"), None)
    return folder if folder is not None and (folder / "bundle.json").is_file() else None


def expanded(path: str) -> Path:
    """`path` with ~ expanded. Raises InvalidSettings if there is no home that it could mean."""
    if not path.startswith("~"):
        return Path(path)
    found = Path(os.path.expanduser(path))  # noqa: PTH111  Path.expanduser raises where there is no home
    # An empty HOME would be the root of all files.
    if found.is_absolute() and os.environ.get("HOME", "/"):
        return found
    raise InvalidSettings(
        f"{path} cannot be found: this user has no home folder (no HOME, no entry among the users); "
        "write the whole path, or set QWEN_AIO_HOME to a folder that it may write to"
    )


def _user_data_folder() -> Path:
    if sys.platform == "darwin":
        return expanded("~/Library/Application Support")
    variable, usual = (
        ("LOCALAPPDATA", "~/AppData/Local") if sys.platform == "win32" else ("XDG_DATA_HOME", "~/.local/share")
    )
    stated = Path(os.environ.get(variable, ""))
    # A relative one is to be ignored, says freedesktop.org.
    return stated if stated.is_absolute() else expanded(usual)


def state_dir() -> Path:
    """Records that may be deleted at any time."""
    return home() / "state"
