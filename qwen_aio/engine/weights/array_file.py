"""Weights that were made of a checkpoint, on disk, so that later starts need not make them again.

A safetensors file. Its metadata say what it holds (its identity), with a hash of that and of the
arrays. A file that cannot be used is logged and counts as missing. Knows nothing of how weights are made.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from qwen_aio.engine.weights.model_weights import Array
from qwen_aio.files import replacing

TYPES = {"I8": np.int8, "U8": np.uint8, "I32": np.int32, "F16": np.float16, "F32": np.float32}
NAMES = {np.dtype(dtype): name for name, dtype in TYPES.items()}
LENGTH_BYTES = 8  # at the start of the file: the length of the header
CACHE_LINE = 64  # bytes, where arrays begin
HEADER_BYTES = 2**20 - LENGTH_BYTES  # its fixed size, as it is written last; enough for hundreds of layers
CHUNK = 2**24  # bytes read at once; other threads run in between
METADATA, DIGEST = "__metadata__", "sha256"
_DAMAGES = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)  # of a file
logger = logging.getLogger(__name__)


class StoredArrays(Mapping[str, Array]):
    """The arrays of a checked file, read only. Later changes of its path do not matter."""

    def __init__(self, file: BinaryIO, header: Mapping[str, Any]) -> None:
        """`file` must stay open as long as this object lives."""
        self._file = file
        self._places = {name: place for name, place in header.items() if name != METADATA}

    def __getitem__(self, name: str) -> Array:
        """A mapping of its own, released with the array."""
        place = self._places[name]
        start = LENGTH_BYTES + HEADER_BYTES + place["data_offsets"][0]
        return np.memmap(self._file, TYPES[place["dtype"]], mode="r", offset=start, shape=tuple(place["shape"]))

    def together(self) -> dict[str, Array]:
        """All in one mapping, which holds one open file; processes that map the same file share its memory."""
        content = np.memmap(self._file, np.uint8, mode="r", offset=LENGTH_BYTES + HEADER_BYTES)
        return {name: self._view(content, place) for name, place in self._places.items()}

    @staticmethod
    def _view(content: NDArray[np.uint8], place: Mapping[str, Any]) -> Array:
        start, end = place["data_offsets"]
        array: Array = content[start:end].view(TYPES[place["dtype"]]).reshape(place["shape"])
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


class Writer:
    """Writes a file array by array."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._places: dict[str, object] = {}  # entries of the header
        self._end = 0  # of the arrays so far
        self._digest = hashlib.sha256()
        self._short: list[tuple[str, Array]] = []  # come last, so that all others begin at a cache line
        file.seek(LENGTH_BYTES + HEADER_BYTES)

    def add(self, name: str, array: Array) -> None:
        """Raises OSError."""
        if array.nbytes % CACHE_LINE:
            self._short.append((name, array))
        else:
            self._write(name, array)

    def finish(self, identity: Mapping[str, str]) -> None:
        """Write the header, after all arrays. Raises OSError."""
        for name, array in sorted(self._short, key=lambda each: -each[1].itemsize):  # so that numbers are aligned
            self._write(name, array)
        metadata = dict(identity)
        header: dict[str, Any] = {METADATA: metadata, **self._places}
        self._digest.update(_canonical(header))
        metadata[DIGEST] = self._digest.hexdigest()
        self._file.seek(0)
        self._file.write(HEADER_BYTES.to_bytes(LENGTH_BYTES, "little"))
        self._file.write(_canonical(header).ljust(HEADER_BYTES))
        self._file.flush()

    def _write(self, name: str, array: Array) -> None:
        content = np.ascontiguousarray(array).data.cast("B")
        start, self._end = self._end, self._end + len(content)
        self._places[name] = {
            "dtype": NAMES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [start, self._end],
        }
        self._file.write(content)
        self._digest.update(content)


@dataclass(frozen=True)
class ArrayFile:
    """A path, and what is to be found there."""

    path: Path
    identity: Mapping[str, str]  # of what it was made, and how

    def find(self) -> StoredArrays | None:
        """The arrays; None if the file is missing or unusable."""
        with ExitStack() as stack:
            try:
                file = stack.enter_context(self.path.open("rb"))
                arrays = StoredArrays(file, self._checked(file))
            except FileNotFoundError:
                return None
            except _DAMAGES as exc:
                logger.warning("the weights kept in %s cannot be used and will be made anew: %s", self.path, exc)
                return None
            weakref.finalize(arrays, stack.pop_all().close)
            return arrays

    def is_current(self) -> bool:
        """True for a file of this identity and full length; `find` alone checks its content."""
        try:
            with self.path.open("rb") as file:
                header = self._header(file)
                del header[METADATA]
                end: int = max(entry["data_offsets"][1] for entry in header.values())
                return file.seek(0, os.SEEK_END) == LENGTH_BYTES + HEADER_BYTES + end
        except _DAMAGES:
            return False

    def keep(self, arrays: Iterable[tuple[str, Array]]) -> None:
        """Write them, one after another; an unwritable place is only logged."""
        try:
            self._sweep()
            with replacing(self.path) as partial, partial.open("wb") as file:
                with suppress(OSError):  # where locks do not work, nothing is swept
                    _lock(file)
                writer = Writer(file)
                for name, array in arrays:
                    writer.add(name, array)
                writer.finish(self.identity)
        except OSError as exc:
            logger.warning("no weights are kept, the next start will make them again: %s", exc)

    def _checked(self, file: BinaryIO) -> Mapping[str, Any]:
        """The header of an intact file. Raises _DAMAGES."""
        header = self._header(file)
        written = header[METADATA].pop(DIGEST)
        digest = hashlib.sha256()
        while chunk := file.read(CHUNK):
            digest.update(chunk)
        digest.update(_canonical(header))
        if digest.hexdigest() != written:
            raise ValueError("its content is not what was written")
        return header

    def _header(self, file: BinaryIO) -> dict[str, Any]:
        """The header of a file of this identity. Raises _DAMAGES."""
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
        if length != HEADER_BYTES:
            raise ValueError(f"its header has {length} bytes, not {HEADER_BYTES}")
        header: dict[str, Any] = json.loads(file.read(HEADER_BYTES))
        found = {name: value for name, value in header[METADATA].items() if name != DIGEST}
        if found != self.identity:
            raise ValueError(f"it holds {found}, not {dict(self.identity)}")
        return header

    def _sweep(self) -> None:
        """Remove files of killed writers; a live one holds a lock, or on Windows the open file."""
        for partial in self.path.parent.glob(f".{self.path.name}.*.tmp"):
            with suppress(OSError):
                with partial.open("rb") as file:
                    _lock(file)
                partial.unlink()


def _lock(file: BinaryIO) -> None:
    """Lock `file` until it is closed. Raises OSError if it is locked or locks are unsupported."""
    if sys.platform != "win32":
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _canonical(header: Mapping[str, Any]) -> bytes:
    return json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
