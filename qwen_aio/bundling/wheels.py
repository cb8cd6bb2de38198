"""Every wheel that qwen_aio needs, fetched by pip: torch from PyTorch's CPU index, the rest from pip's own.

Uses the network, as pip is set up.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

from packaging.utils import canonicalize_name

from qwen_aio.bundling.target import Target
from qwen_aio.bundling.wheel_file import WheelFile
from qwen_aio.errors import BundleFailed

TORCH_INDEX = "https://download.pytorch.org/whl/cpu"


def collect_wheels(
    own: WheelFile, target: Target, into: Path, *, torch_index: str, warn: Callable[[str], object]
) -> list[WheelFile]:
    """`own` and all that it requires, in `into`, sorted by name. Raises BundleFailed.

    `warn` is told where torch could not be had from `torch_index`, and comes from pip's own index.
    """
    shutil.copy(own.path, into)
    torch = own.requirement("torch")
    if torch is not None and not _fetch([f"torch{torch.specifier}"], target, into, index=torch_index):
        warn(
            f"{torch_index} cannot be reached, or has no such torch; taking it from pip's own index, where the one for"
            " Linux has CUDA, which is never used: several gigabytes more"
        )
    wanted = [str(own.path)]
    while wanted:
        if not _fetch(wanted, target, into):
            newer = (
                ""
                if target.is_here
                else "; a newer --platform, such as manylinux_2_28_x86_64, may have what is missing"
            )
            raise BundleFailed(f"pip does not get all packages for {target}; what it printed says why{newer}")
        wheels = sorted((WheelFile.open(path) for path in into.glob("*.whl")), key=lambda wheel: wheel.name)
        wanted = _lacking(wheels, target)
    _check_once(wheels)
    return wheels


def _fetch(wanted: Sequence[str], target: Target, into: Path, *, index: str | None = None) -> bool:
    """Whether pip got `wanted`: with what these require, unless an index of their own is given."""
    from_there = () if index is None else ("--no-deps", "--retries", "1", "--timeout", "15", "--index-url", index)
    if target.is_here:
        return run_pip("wheel", "--wheel-dir", str(into), "--find-links", str(into), *from_there, *wanted)
    flags = ("--only-binary", ":all:", "--find-links", str(into), *target.pip_flags, *from_there)
    return run_pip("download", "--dest", str(into), *flags, *wanted)


def _lacking(wheels: Sequence[WheelFile], target: Target) -> list[str]:
    """Requirements that hold on `target` and that pip, which judges them by the Python it runs on, left out."""
    there = {wheel.name for wheel in wheels}
    environment = target.environment
    return sorted(
        {
            f"{each.name}{each.specifier}"
            for wheel in wheels
            for each in wheel.requirements
            if canonicalize_name(each.name) not in there and (each.marker is None or each.marker.evaluate(environment))
        }
    )


def _check_once(wheels: Sequence[WheelFile]) -> None:
    """Raises BundleFailed for two versions of a package: only one can be installed."""
    for one, next_one in pairwise(wheels):
        if one.name == next_one.name:
            raise BundleFailed(
                f"pip got {one.path.name} and {next_one.path.name}; give a --wheel whose requirements agree"
            )


def run_pip(command: str, *arguments: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this Python's pip succeeds; it prints what it does. Raises BundleFailed where there is none."""
    if find_spec("pip") is None:
        raise BundleFailed(f"{sys.executable} has no pip: run `{sys.executable} -m ensurepip`")
    return subprocess.run([sys.executable, "-m", "pip", command, *arguments], env=environment).returncode == 0
