"""The layout of a model hub's cache: models--OWNER--NAME/{blobs, refs, snapshots/COMMIT}."""

from __future__ import annotations

from pathlib import Path

from qwen_aio.errors import InvalidModel

PREFIX = "models--"


def model_name(folder: Path) -> str:
    """OWNER/NAME for a snapshot, else the folder's own name."""
    place = folder.resolve()
    top = place.parent.parent
    if place.parent.name == "snapshots" and top.name.startswith(PREFIX):
        return top.name.removeprefix(PREFIX).replace("--", "/", 1)
    return place.name


def snapshot_in(folder: Path) -> Path:
    """`folder`, or its snapshot if it is models--OWNER--NAME. Raises InvalidModel, OSError.

    The snapshot is the one that refs/main names, or the only one.
    """
    snapshots = folder / "snapshots"
    if not snapshots.is_dir():
        return folder
    main = folder / "refs" / "main"
    named = snapshots / main.read_text(encoding="utf-8").strip() if main.is_file() else None
    if named is not None and named.is_dir():
        return named
    there = sorted(path for path in snapshots.iterdir() if path.is_dir())
    if len(there) != 1:
        found = ", ".join(path.name for path in there) or "nothing"
        raise InvalidModel(f"{folder} is a model hub's cache with {found} in snapshots/; name one snapshot's folder")
    return there[0]
