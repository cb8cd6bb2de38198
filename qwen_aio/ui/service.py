"""What the page needs to know of the rest of the house: somebody who answers, and who that is."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Protocol

from qwen_aio.core import Event, Request, Task


class Service(Protocol):
    """In single mode the worker's own service, in the same process; else a client that speaks HTTP."""

    def stream(self, request: Request) -> AsyncGenerator[Event, None]:
        """Decided (if a decision is part of it), Token*, Done. Closing it cancels what runs. Raises QwenAioError."""

    async def tasks(self) -> Mapping[str, Task]:
        """Every task by name. Raises QwenAioError."""


@dataclass(frozen=True)
class About:
    """Who answers, as the page tells it. What is not known at the moment is None."""

    model: str | None
    is_bundled: bool  # the small model that ships with the package: a demonstration
    version: str
    worker: str | None
    url: str | None = None  # of the server behind the page; None: it is this process
