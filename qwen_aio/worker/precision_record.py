"""What is remembered of one model file: which precision its weights may have, and its int8 weights.

Lies in state/int8, and may be deleted at any time. Reads and writes; decides nothing.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from filelock import FileLock, Timeout

from qwen_aio.core import Precision
from qwen_aio.files import read_text, replacing

VERSION = "1"  # to be raised whenever int8 is made or judged in another way
MOMENT_S = 1.0  # a wait that need not be told
PATIENCE_S = 120.0  # of workers that start together and wait for one of them to compare or to quantise
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PrecisionRecord:
    """A precision, and what led to it."""

    precision: Precision
    why: str

    @property
    def told(self) -> str:
        """The one line that says which precision was chosen and why."""
        return f"precision {self.precision}: {self.why}"


@dataclass(frozen=True)
class PrecisionRecords:
    """What is remembered of the model whose files have this hash, compared by these questions."""

    folder: Path
    model_sha: str
    questions: str  # a digest

    @property
    def copy_path(self) -> Path:
        """Where the int8 weights are, or will be."""
        return self.folder / f"{self.model_sha}.safetensors"

    def read(self) -> PrecisionRecord | None:
        """The verdict; None if there is none that counts here."""
        try:
            record = json.loads(read_text(self._path))
            verdict, versions = PrecisionRecord(**record["verdict"]), record["versions"]
            if verdict.precision not in ("fp32", "int8") or not isinstance(verdict.why, str):
                raise ValueError(f"precision {verdict.precision!r}, why {verdict.why!r}")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as exc:
            log.warning("the verdict in %s cannot be used and will be found anew: %s", self._path, exc)
            return None
        return verdict if versions == _versions() else None

    def write(self, verdict: PrecisionRecord) -> None:
        """Remember `verdict`. A folder that cannot be written to is only told."""
        record = {"verdict": asdict(verdict), "versions": _versions()}
        try:
            with replacing(self._path) as partial:
                partial.write_text(f"{json.dumps(record, ensure_ascii=False, indent=1)}\n", encoding="utf-8")
        except OSError as exc:
            log.warning("the verdict on the precision is not kept, the next start will compare again: %s", exc)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else is in here for the same model, as far as locks work in the folder."""
        lock = FileLock(self.folder / f"{self.model_sha}.lock", fallback_to_soft=False)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            _take(lock)
        except (OSError, Timeout) as exc:
            log.info("others may compare or quantise at the same time: %s", exc)
            yield
            return
        try:
            yield
        finally:
            lock.release()

    @property
    def _path(self) -> Path:
        return self.folder / f"{self.model_sha}-{self.questions}.json"


def _take(lock: FileLock) -> None:
    """Raises OSError, Timeout."""
    try:
        lock.acquire(timeout=MOMENT_S)
    except Timeout:
        log.info("waiting for another process, which compares or quantises this model; for %g s at most", PATIENCE_S)
        lock.acquire(timeout=PATIENCE_S)


def _versions() -> dict[str, str | int]:
    """What a verdict depends on besides the model and the questions."""
    # Here and not above: importing torch takes seconds.
    from qwen_aio.engine.model.linear import activation_levels
    from qwen_aio.engine.quant.quantise import recipe

    return {"verdict": VERSION, "torch": version("torch"), "levels": activation_levels(), "recipe": recipe()}
