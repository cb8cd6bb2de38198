"""A model's int8 weights on disk, so that later starts need not quantise again.

A safetensors file. Its metadata hold the hash of the checkpoint's files, the version of the
quantisation, the names of the two-pass matrices ("fine"), and a hash of all that and of the
tensors. An unusable copy is logged and counts as missing. Knows nothing of how weights are made.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import weakref
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from qwen_aio.engine.config import ModelConfig
from qwen_aio.engine.model.linear import Int8Matrix, activation_levels
from qwen_aio.engine.model.weights import LayerWeights, ModelWeights
from qwen_aio.engine.quant.quantise import VERSION, recipe
from qwen_aio.files import replacing

TYPES = {torch.int8: "I8", torch.float32: "F32"}
ARRAY_TYPES = {"I8": np.int8, "F32": np.float32}
LENGTH_BYTES = 8  # at the start of the file: the length of the header
HEADER_BYTES = 2**20  # its fixed size, as it is written last; enough for hundreds of layers
CHUNK = 2**24  # bytes read at once; other threads run in between
METADATA = "__metadata__"
_DAMAGES = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)  # of a copy
logger = logging.getLogger(__name__)


class Int8Copy:
    """The weights in a checked copy (ModelWeights). Later changes of its path do not matter."""

    def __init__(self, file: BinaryIO, header: Mapping[str, Any]) -> None:
        """`file` must stay open as long as this object lives."""
        self._file = file
        self._header = header
        self._two_pass = frozenset(header[METADATA]["fine"].split())

    def embedding(self) -> Tensor | Int8Matrix:
        return self._part("embedding")

    def output(self) -> Tensor | Int8Matrix:
        untied = self._part_if_any("output")
        return self.embedding() if untied is None else untied

    def norm(self) -> Tensor:
        return self._tensor("norm")

    def layer(self, number: int) -> LayerWeights[Int8Matrix]:
        names = [field.name for field in fields(LayerWeights)]
        parts: dict[str, Any] = {name: self._part_if_any(f"layers.{number}.{name}") for name in names}
        return LayerWeights(**parts)

    def _part_if_any(self, name: str) -> Tensor | Int8Matrix | None:
        return None if self._header.keys().isdisjoint({name, f"{name}.values"}) else self._part(name)

    def _part(self, name: str) -> Tensor | Int8Matrix:
        if name in self._header:
            return self._tensor(name)
        values = self._stored(f"{name}.values")  # a view of the file: few rows of the embedding are ever read
        return Int8Matrix(values, self._tensor(f"{name}.scales"), two_pass=name in self._two_pass)

    def _tensor(self, name: str) -> Tensor:
        return self._stored(name).clone()

    def _stored(self, name: str) -> Tensor:
        """A mapping of its own, released with the tensor: no weights stay in memory twice."""
        place = self._header[name]
        start, dtype = LENGTH_BYTES + HEADER_BYTES + place["data_offsets"][0], ARRAY_TYPES[place["dtype"]]
        return torch.from_numpy(np.memmap(self._file, dtype, mode="c", offset=start, shape=tuple(place["shape"])))


class Writer:
    """Writes a copy part by part."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._places: dict[str, object] = {}  # entries of the header
        self._end = 0  # of the tensors so far
        self._digest = hashlib.sha256()
        self._two_pass: list[str] = []
        file.seek(LENGTH_BYTES + HEADER_BYTES)

    def add(self, name: str, part: Tensor | Int8Matrix) -> None:
        """Raises OSError."""
        if isinstance(part, Tensor):
            self._write(name, part)
            return
        self._write(f"{name}.values", part.values)
        self._write(f"{name}.scales", part.scales)
        if part.two_pass:
            self._two_pass.append(name)

    def finish(self, *, model_sha: str) -> None:
        """Write the header, after all parts. Raises OSError."""
        metadata = {"version": _version(), "model_sha": model_sha, "fine": " ".join(self._two_pass)}
        header: dict[str, Any] = {METADATA: metadata, **self._places}
        self._digest.update(_canonical(header))
        metadata["sha256"] = self._digest.hexdigest()
        self._file.seek(0)
        self._file.write(HEADER_BYTES.to_bytes(LENGTH_BYTES, "little"))
        self._file.write(_canonical(header).ljust(HEADER_BYTES))
        self._file.flush()

    def _write(self, name: str, tensor: Tensor) -> None:
        content = tensor.contiguous().numpy().data.cast("B")
        start, self._end = self._end, self._end + len(content)
        self._places[name] = {
            "dtype": TYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, self._end],
        }
        self._file.write(content)
        self._digest.update(content)


@dataclass(frozen=True)
class CopyPlace:
    """The path of one checkpoint's copy."""

    path: Path
    model_sha: str  # of the checkpoint's files

    def find(self) -> Int8Copy | None:
        """The copy; None if it is missing or unusable."""
        with ExitStack() as stack:
            try:
                file = stack.enter_context(self.path.open("rb"))
                copy = Int8Copy(file, _checked(file, model_sha=self.model_sha))
            except FileNotFoundError:
                return None
            except _DAMAGES as exc:
                logger.warning("the int8 copy %s cannot be used and will be made anew: %s", self.path, exc)
                return None
            weakref.finalize(copy, stack.pop_all().close)
            return copy

    def is_current(self) -> bool:
        """True for a copy of this version and full length; `find` alone checks its content."""
        try:
            with self.path.open("rb") as file:
                header = _header(file, model_sha=self.model_sha)
                del header[METADATA]
                end: int = max(entry["data_offsets"][1] for entry in header.values())
                return file.seek(0, os.SEEK_END) == LENGTH_BYTES + HEADER_BYTES + end
        except _DAMAGES:
            return False

    def keep(self, weights: ModelWeights, config: ModelConfig) -> None:
        """Write a copy of `weights`; an unwritable place is only logged. Raises InvalidModel."""
        try:
            self._sweep()
            with replacing(self.path) as partial, partial.open("wb") as file:
                with suppress(OSError):  # where locks do not work, nothing is swept
                    _lock(file)
                writer = Writer(file)
                for name, part in _all_parts(weights, config):
                    writer.add(name, part)
                writer.finish(model_sha=self.model_sha)
        except OSError as exc:
            logger.warning("no int8 copy is kept, the next start will quantise again: %s", exc)

    def _sweep(self) -> None:
        """Remove files of killed writers; a live one holds a lock, or on Windows the open file."""
        for partial in self.path.parent.glob(f".{self.path.name}.*.tmp"):
            with suppress(OSError):
                with partial.open("rb") as file:
                    _lock(file)
                partial.unlink()


def _all_parts(weights: ModelWeights, config: ModelConfig) -> Iterator[tuple[str, Tensor | Int8Matrix]]:
    """The largest first, while memory is free."""
    yield "embedding", weights.embedding()
    if not config.tied:
        yield "output", weights.output()
    yield "norm", weights.norm()
    for number in range(config.num_layers):
        for name, part in vars(weights.layer(number)).items():
            if part is not None:  # architectures differ
                yield f"layers.{number}.{name}", part


def _checked(file: BinaryIO, *, model_sha: str) -> Mapping[str, Any]:
    """The header of an intact copy. Raises _DAMAGES."""
    header = _header(file, model_sha=model_sha)
    written = header[METADATA].pop("sha256")
    digest = hashlib.sha256()
    while chunk := file.read(CHUNK):
        digest.update(chunk)
    digest.update(_canonical(header))
    if digest.hexdigest() != written:
        raise ValueError("its content is not what was written")
    return header


def _header(file: BinaryIO, *, model_sha: str) -> dict[str, Any]:
    """The header of a copy of this version and model. Raises _DAMAGES."""
    length = int.from_bytes(file.read(LENGTH_BYTES), "little")
    if length != HEADER_BYTES:
        raise ValueError(f"its header has {length} bytes, not {HEADER_BYTES}")
    header: dict[str, Any] = json.loads(file.read(HEADER_BYTES))
    metadata = header[METADATA]
    if (metadata["version"], metadata["model_sha"]) != (_version(), model_sha):
        raise ValueError(f"it is version {metadata['version']} of model {metadata['model_sha']}")
    return header


def _lock(file: BinaryIO) -> None:
    """Lock `file` until it is closed. Raises OSError if it is locked or locks are unsupported."""
    if sys.platform != "win32":
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _version() -> str:
    """The choice of two-pass matrices depends on the activation levels of this processor."""
    return f"{VERSION}, {activation_levels()} levels, {recipe()}"


def _canonical(header: Mapping[str, Any]) -> bytes:
    return json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
