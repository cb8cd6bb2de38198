"""What a check finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Mark = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """What is so, and what to do about it.

    A problem ends a start, or lets it do something else than was asked for; a note is worth knowing.
    """

    mark: Mark
    found: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.found}; {self.remedy}" if self.remedy else self.found
