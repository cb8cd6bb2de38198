"""The Python and the platform that a bundle is for: this one, or another that pip's tags name."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from packaging.markers import default_environment
from packaging.tags import Tag, compatible_tags, cpython_tags, sys_tags

from qwen_aio.errors import InvalidSettings

OLDEST_MINOR = 11
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
_PYTHON = re.compile(r"3\.(\d{1,2})")
_MANYLINUX = re.compile(r"manylinux(?:_2_(\d{1,2})|(2014))_([a-z0-9_]{1,20})")
OLDEST_GLIBC = 17  # 2.17 is that of manylinux2014


@dataclass(frozen=True)
class Target:
    """`tags` are pip's for another platform, the newest first; without any it is this platform."""

    python: str  # such as 3.11
    machine: str  # as platform.machine() names it
    tags: tuple[str, ...] = ()

    @classmethod
    def of(cls, *, platform_tag: str | None, python: str | None) -> Target:
        """Raises InvalidSettings."""
        python = python or HERE
        version = _PYTHON.fullmatch(python)
        if version is None or int(version[1]) < OLDEST_MINOR:
            raise InvalidSettings(f"--python {python}: give 3.{OLDEST_MINOR} or newer, such as 3.12", param="python")
        if platform_tag is None and python == HERE:
            return cls(python, platform.machine())
        if sys.platform != "linux":
            raise InvalidSettings(
                "--platform and --python name others on Linux alone; make this bundle on such a machine"
            )
        platform_tag = platform_tag or f"manylinux_2_{_glibc_minor()}_{platform.machine()}"
        found = _MANYLINUX.fullmatch(platform_tag)
        if found is None:
            raise InvalidSettings(
                f"--platform {platform_tag}: give manylinux_2_GLIBC_MACHINE, such as manylinux_2_28_aarch64;"
                " a bundle for Windows or macOS is made there",
                param="platform",
            )
        newest, machine = int(found[1] or OLDEST_GLIBC), found[3]
        tags = [f"manylinux_2_{minor}_{machine}" for minor in range(newest, OLDEST_GLIBC - 1, -1)]
        return cls(python, machine, (*tags, f"manylinux2014_{machine}", f"linux_{machine}"))

    @property
    def is_here(self) -> bool:
        return not self.tags

    @property
    def pip_flags(self) -> tuple[str, ...]:
        """For `pip download`."""
        if self.is_here:
            return ()
        abi = f"cp{self.python.replace('.', '')}"
        platforms = [flag for tag in self.tags for flag in ("--platform", tag)]
        abis = ("--abi", abi, "--abi", "abi3", "--abi", "none")
        return (*platforms, "--python-version", self.python, "--implementation", "cp", *abis)

    @property
    def environment(self) -> dict[str, str]:
        """What markers of requirements are compared with."""
        environment: dict[str, str] = {**default_environment(), "extra": ""}  # type: ignore[dict-item]  # all are strings
        if not self.is_here:
            environment |= {"python_version": self.python, "python_full_version": f"{self.python}.0"}
            environment |= {"platform_machine": self.machine}
        return environment

    def takes(self, tags: frozenset[Tag]) -> bool:
        """Whether pip there installs a wheel with these tags."""
        return any(tag in tags for tag in self._tags())

    def __str__(self) -> str:
        return f"Python {self.python} on {sys.platform} {self.machine}"

    def _tags(self) -> Iterator[Tag]:
        if self.is_here:
            yield from sys_tags()
            return
        version = tuple(map(int, self.python.split(".")))
        yield from cpython_tags(version, platforms=self.tags)
        yield from compatible_tags(version, platforms=self.tags)


def _glibc_minor() -> int:
    name, version = platform.libc_ver()
    return int(version.split(".")[1]) if name == "glibc" else OLDEST_GLIBC
