"""The model and the worker that answer, as the page shows them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class About:
    """Model and worker that answer. None: not known at the moment."""

    model: str | None
    is_bundled: bool  # the small model that ships with the package: a demonstration
    version: str
    worker: str | None
    url: str | None = None  # of the server that the page asks; None: it is this process
    has_keys: bool = False  # whoever sees the page has signed in
