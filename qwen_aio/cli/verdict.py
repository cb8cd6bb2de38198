"""What is remembered of one model file: which precision its weights may have, and its int8 weights.

Lies in state/int8, and may be deleted at any time. Reads and writes; decides nothing.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

VERSION = "1"  # to be raised whenever int8 is made or judged in another way
PATIENCE_S = 120.0  # of workers that start together and wait for one of them to compare
Precision = Literal["fp32", "int8"]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Verdict:
    """A precision, and what led to it."""

    precision: Precision
    why: str

    @property
    def told(self) -> str:
        """The one line that says which precision was chosen and why."""
        return f"precision {self.precision}: {self.why}"


@dataclass(frozen=True)
class Records:
    """What is remembered of the model whose files have this hash."""

    folder: Path
    model_sha: str

    @property
    def copy_path(self) -> Path:
        """Where the int8 weights are, or will be."""
        return self.folder / f"{self.model_sha}.safetensors"

    def read(self) -> Verdict | None:
        """The verdict; None if there is none that counts here."""
        try:
            record = json.loads(self._path.read_text(encoding="utf-8"))
            verdict, versions = Verdict(**record["verdict"]), record["versions"]
            if verdict.precision not in ("fp32", "int8"):
                raise ValueError(f"there is no precision {verdict.precision!r}")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as exc:
            log.warning("the verdict in %s cannot be used and will be found anew: %s", self._path, exc)
            return None
        return verdict if versions == _versions() else None

    def write(self, verdict: Verdict) -> None:
        """Remember `verdict`. A folder that cannot be written to is only told."""
        partial = self._path.with_suffix(f".{os.getpid()}.tmp")
        record = {"verdict": asdict(verdict), "versions": _versions()}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            partial.write_text(f"{json.dumps(record, ensure_ascii=False, indent=1)}\n", encoding="utf-8")
            partial.replace(self._path)
        except OSError as exc:
            log.warning("the verdict on the precision is not kept, the next start will compare again: %s", exc)

    def drop_copy(self) -> None:
        """Forget the int8 weights: nobody will want them."""
        try:
            self.copy_path.unlink(missing_ok=True)
        except OSError as exc:
            log.warning("the int8 weights in %s are not wanted any more, but stay: %s", self.copy_path, exc)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else is in here for the same model, as far as locks work in the folder."""
        lock = FileLock(self.folder / f"{self.model_sha}.lock", timeout=PATIENCE_S, fallback_to_soft=False)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except (OSError, Timeout) as exc:
            log.info("others may compare the precisions at the same time: %s", exc)
            yield
            return
        try:
            yield
        finally:
            lock.release()

    @property
    def _path(self) -> Path:
        return self.folder / f"{self.model_sha}.json"


def _versions() -> dict[str, str]:
    """What a verdict depends on besides the model."""
    return {"verdict": VERSION, "torch": version("torch")}
