"""Who answers, as the page shows it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class About:
    """Who answers, as the page tells it. What is not known at the moment is None."""

    model: str | None
    is_bundled: bool  # the small model that ships with the package: a demonstration
    version: str
    worker: str | None
    url: str | None = None  # of the server behind the page; None: it is this process
