"""The clock of this machine, beside the dates of files that cannot be of the future."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from qwen_aio.doctor.finding import Finding
from qwen_aio.status.file import utc_time

DAY_S = 86_400  # an archive may keep dates of another time zone


def clock_findings(now: float, written: Mapping[Path, float]) -> list[Finding]:
    """`written`: when each file was; all in seconds since 1970."""
    later = {path: at for path, at in written.items() if at > now + DAY_S}
    if not later:
        return [Finding("ok", f"{utc_time(now)}, after the dates of the program")]
    path = max(later, key=lambda each: later[each])
    found = f"it shows {utc_time(now)}, but {path} was written {utc_time(later[path])}"
    return [Finding("problem", found, "set it: certificates, sessions and the age of records go by it")]


def read_dates(paths: Iterable[Path]) -> dict[Path, float]:
    """Of those that are there."""
    dates = {}
    for path in paths:
        with suppress(OSError):
            dates[path] = path.stat().st_mtime
    return dates
