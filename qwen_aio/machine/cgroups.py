"""Linux' control groups of this process, which limit a container: where their files are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Literal


def groups(root: Path, controller: str) -> Iterator[tuple[Literal[1, 2], Path]]:
    """Version and folder of every group that may limit `controller`, from this process's own up.

    /sys and /proc are below `root`. A folder need not exist.
    """
    mounts = root / "sys/fs/cgroup"
    for controllers, path in _own_groups(root):
        # In a container the path may be the host's, of which only the top is mounted.
        for group in (path, *path.parents):
            below = group.relative_to("/")
            if controller in controllers.split(","):
                for mount in dict.fromkeys((controllers, controller)):
                    yield 1, mounts / mount / below
            elif not controllers:
                for mount in ("", "unified"):
                    yield 2, mounts / mount / below


def _own_groups(root: Path) -> Iterator[tuple[str, PurePosixPath]]:
    """Controllers and path of each hierarchy; version 2 is always included, without controllers."""
    found = {"": PurePosixPath("/")}
    with suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            is_below = path.startswith("/") and ".." not in PurePosixPath(path).parts
            found[controllers] = PurePosixPath(path if is_below else "/")
    yield from found.items()
