"""The records of one model file in state/weights: its precision and its weights in int8 or int4.

They may be deleted at any time. Reads and writes; decides nothing.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from qwen_aio.core import Precision, Rounded
from qwen_aio.files import read_text, replacing

if TYPE_CHECKING:
    from qwen_aio.engine.weights.array_file import ArrayFile

MOMENT_S = 1.0  # a wait that is not logged
PATIENCE_S = 120.0  # with a process that compares or quantises for several
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PrecisionRecord:
    """A precision, and why it was chosen."""

    precision: Precision
    why: str

    def __str__(self) -> str:
        return f"precision {self.precision}: {self.why}"


@dataclass(frozen=True)
class PrecisionRecords:
    """Of the model whose files have this hash, computed by this kernel, compared by these questions."""

    folder: Path
    model_sha: str
    kernel: str
    questions: str  # a digest
    rounded: Rounded = "int8"  # what is compared with fp32

    @cached_property
    def weights(self) -> ArrayFile:
        """The file of the rounded weights, which need not exist yet."""
        # Here and not above: whoever only starts workers needs no numpy.
        from qwen_aio.engine.quant.kept_weights import kept_weights

        return kept_weights(self.folder, self.model_sha, self.kernel, self.rounded)

    def read(self) -> PrecisionRecord | None:
        """The record; None if there is none that is valid here."""
        try:
            content = json.loads(read_text(self._path))
            record, versions = PrecisionRecord(**content["verdict"]), content["versions"]
            if record.precision not in ("fp32", self.rounded) or not isinstance(record.why, str):
                raise ValueError(f"precision {record.precision!r}, why {record.why!r}")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as exc:
            logger.warning("the precision record %s cannot be used and will be made anew: %s", self._path, exc)
            return None
        return record if versions == self._versions else None

    def write(self, record: PrecisionRecord) -> None:
        """Keep `record`; logs a warning where the folder cannot be written to."""
        content = {"verdict": asdict(record), "versions": self._versions}
        try:
            with replacing(self._path) as partial:
                partial.write_text(f"{json.dumps(content, ensure_ascii=False, indent=1)}\n", encoding="utf-8")
        except OSError as exc:
            logger.warning("the precision record is not kept, the next start will compare again: %s", exc)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keeps other processes out for the same model, as far as locks work in the folder."""
        lock = FileLock(self.folder / f"{self.model_sha}.lock", fallback_to_soft=False)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            _take(lock)
        except OSError as exc:  # Timeout is one
            logger.info("others may compare or quantise at the same time: %s", exc)
        try:
            yield
        finally:
            lock.release()  # if it was taken

    def can_be_kept(self) -> bool:
        """Whether another process could leave something here."""
        with suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
        return os.access(self.folder, os.W_OK)

    @property
    def _path(self) -> Path:
        return self.folder / f"{self.model_sha}-{self.questions}-{self.rounded}-{self.kernel}.json"

    @property
    def _versions(self) -> dict[str, str | int]:
        """What a record depends on besides the model, the kernel and the questions."""
        from qwen_aio.engine.quant.kept_weights import VERSION, input_levels, recipe

        return {
            "verdict": VERSION,
            "torch": version("torch"),
            "levels": input_levels(self.kernel),
            "recipe": recipe(),
        }


def _take(lock: FileLock) -> None:
    """Raises OSError."""
    try:
        lock.acquire(timeout=MOMENT_S)
    except Timeout:
        logger.info("waiting for another process, which compares or quantises this model; for %g s at most", PATIENCE_S)
        lock.acquire(timeout=PATIENCE_S)
