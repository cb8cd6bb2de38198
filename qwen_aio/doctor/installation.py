"""Python and the packages: what is installed, beside what this version names. Imports none of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version

from qwen_aio import __version__
from qwen_aio.doctor.finding import Finding
from qwen_aio.engine.native.bindings import TORCH

OWN_NAME = "qwen-aio"
PINNED = re.compile(r"(?P<name>[\w.-]+)==(?P<version>[\w.]+)(?: *; *(?P<marker>.+))?")
EXTRA = re.compile(r"extra == [\"'](\w+)[\"']")
FOR_DEVELOPERS = "dev"
AGAIN = "install qwen-aio again, with its dependencies"
USES: Mapping[str, str] = {"json": "answers that keep to a JSON schema (response_format)"}


@dataclass(frozen=True)
class Requirement:
    """A package, the version that was tested, and the one that is there."""

    name: str
    wanted: str
    installed: str | None
    extra: str = ""  # which needs it; empty for all installations

    @property
    def is_met(self) -> bool:
        """+cpu and the like are builds of one version."""
        return self.installed is not None and self.installed.partition("+")[0] == self.wanted


def python_findings(python: str, executable: str, *, largest_size: int) -> list[Finding]:
    """`largest_size`: sys.maxsize."""
    if largest_size < 2**32:
        found = f"{executable} is a Python of 32 bits, for which there is no torch"
        return [Finding("problem", found, "install one of 64 bits")]
    return [Finding("ok", f"Python {python} at {executable}")]


def package_findings(requirements: Iterable[Requirement] | None, *, recorded_version: str | None) -> list[Finding]:
    """All but torch and the extras; None where nothing is installed, and this is only a folder."""
    if requirements is None:
        unknown = "qwen_aio runs from a folder and is not installed, so what it needs is not known"
        return [Finding("note", unknown, AGAIN)]
    if recorded_version != __version__:
        return [Finding("problem", f"this is {__version__}, but {recorded_version} was installed", AGAIN)]
    needed = [each for each in requirements if not each.extra and each.name != "torch"]
    missing = [each.name for each in needed if each.installed is None]
    untested = [each for each in needed if each.installed and not each.is_met]
    found = [Finding("problem", f"missing: {', '.join(missing)}", AGAIN)] if missing else []
    if untested:
        named = ", ".join(f"{each.name} {each.installed} ({each.wanted})" for each in untested)
        found.append(Finding("note", f"other versions than the tested ones in brackets: {named}", AGAIN))
    return found or [Finding("ok", f"qwen_aio {__version__} and {len(needed)} packages in the tested versions")]


def torch_findings(requirement: Requirement, *, kernel: str, may_be_int8: bool) -> list[Finding]:
    """`kernel`: what is to compute the model."""
    if requirement.installed is None:
        if kernel == TORCH:
            return [Finding("problem", "torch is not installed, and nothing else computes this model here", AGAIN)]
        if may_be_int8:
            found = "torch is not installed, which makes the int8 weights of a model and compares them with fp32"
            return [Finding("problem", found, f"{AGAIN}, or start with --precision fp32")]
        return [Finding("note", f"torch is not installed; the kernel {kernel} computes without it", AGAIN)]
    if not requirement.is_met:
        found = f"torch {requirement.installed} is not the tested version, {requirement.wanted}"
        return [Finding("note", found, AGAIN)]
    return [Finding("ok", f"torch {requirement.installed}")]


def extra_findings(requirements: Iterable[Requirement]) -> list[Finding]:
    """A line for each extra but the developers'."""
    extras: dict[str, list[Requirement]] = {}
    for each in requirements:
        if each.extra not in ("", FOR_DEVELOPERS):
            extras.setdefault(each.extra, []).append(each)
    return [_extra_finding(extra, needed) for extra, needed in extras.items()]


def _extra_finding(extra: str, needed: Iterable[Requirement]) -> Finding:
    missing = ", ".join(each.name for each in needed if each.installed is None)
    if not missing:
        return Finding("ok", f"{extra}: {', '.join(f'{each.name} {each.installed}' for each in needed)}")
    found = f"{extra}: {missing} is not installed, which {USES.get(extra, extra)} need"
    return Finding("note", found, f"pip install 'qwen-aio[{extra}]' adds it")


def read_requirements(*, platform: str) -> list[Requirement] | None:
    """What the installed qwen_aio names for `platform`; None where it is not installed."""
    try:
        named = requires(OWN_NAME) or []
    except PackageNotFoundError:
        return None
    found = filter(None, map(PINNED.fullmatch, named))
    return [
        Requirement(each["name"], each["version"], installed_version(each["name"]), _extra_of(each["marker"] or ""))
        for each in found
        if f'sys_platform != "{platform}"' not in (each["marker"] or "")
    ]


def read_torch(requirements: Iterable[Requirement] | None) -> Requirement:
    """That of torch; any version is right where none is named."""
    installed = installed_version("torch")
    anything = Requirement("torch", (installed or "").partition("+")[0], installed)
    return next((each for each in requirements or () if each.name == "torch"), anything)


def _extra_of(marker: str) -> str:
    found = EXTRA.search(marker)
    return found[1] if found else ""


def installed_version(name: str) -> str | None:
    """Of a package; None without it."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None
