"""The administrative states of workers, kept in admin.json; one balancer at a time owns it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

from filelock import FileLock, Timeout

from qwen_aio.balancer.snapshot import AdminState
from qwen_aio.errors import InvalidSettings, StatusUnwritable
from qwen_aio.files import read_text, replacing

logger = logging.getLogger(__name__)


class AdminFile:
    """`status/admin.json`: worker id -> drain or maint. Only the balancer writes it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / "admin.json"

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Lock the folder for this balancer. Raises InvalidSettings, also if another one has it."""
        lock = FileLock(self._folder / "balancer.lock", fallback_to_soft=False)
        try:
            self._folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            lock.acquire(blocking=False)
        except Timeout as exc:
            raise InvalidSettings(
                f"another balancer serves the workers in {self._folder}; stop it, or choose another --status-dir"
            ) from exc
        except OSError as exc:
            raise InvalidSettings(
                f"{self._folder} cannot be used: {exc}; choose another folder with --status-dir or QWEN_AIO_HOME"
            ) from exc
        try:
            yield
        finally:
            lock.release()

    def read(self) -> dict[str, AdminState]:
        """The states; a damaged file is logged and counts as empty."""
        try:
            states = json.loads(read_text(self._path))
            return {str(worker_id): state for worker_id, state in states.items() if state in get_args(AdminState)}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError, TypeError, RecursionError) as exc:
            logger.warning("%s cannot be read, all workers count as ready: %s", self._path, exc)
            return {}

    def write(self, states: Mapping[str, AdminState]) -> None:
        """Replace the states in the file. Raises StatusUnwritable."""
        try:
            with replacing(self._path) as partial:
                partial.write_text(json.dumps(states, indent=1, sort_keys=True), encoding="utf-8")
        except OSError as exc:
            raise StatusUnwritable(f"{self._path} cannot be written, so a restart would forget it: {exc}") from exc
