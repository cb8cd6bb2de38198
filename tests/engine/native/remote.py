"""The C++ library in another process, in place of the one that ctypes loads: remote.cpp is the other side."""

from __future__ import annotations

import ctypes
import gc
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from qwen_aio.engine.native import bindings, model
from tests.engine.native import running


class RemoteLibrary:
    """The functions of native/interface.h; the other process reads and writes the memory of this one."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._deleted: list[int] = []  # a model may go away in the middle of a call

    def qwen_aio_kernel(self, name: bytes) -> bytes | None:
        return self._call("kernel", name.decode()) or None

    def qwen_aio_together(self, kernel: bytes) -> int:
        return int(self._call("together", kernel.decode()))

    def qwen_aio_layout(self) -> list[int]:
        return [int(self._call("layout", index)) for index in range(len(bindings.LAYOUT))]

    def qwen_aio_new(self, weights: Any, kernel: bytes, num_threads: int) -> int:
        return int(self._call("new", _address(weights), kernel.decode(), num_threads))

    def qwen_aio_delete(self, handle: int) -> None:
        self._deleted.append(handle)

    def qwen_aio_forward(self, handle: int, batch: Any, memory: Any, states: int) -> bool:
        return bool(int(self._call("forward", handle, _address(batch), _address(memory), states)))

    def qwen_aio_logits(
        self, handle: int, states: int, num_rows: int, first_column: int, num_columns: int, logits: int
    ) -> bool:
        return bool(int(self._call("logits", handle, states, num_rows, first_column, num_columns, logits)))

    def _call(self, function: str, *arguments: object) -> bytes:
        while self._deleted and function != "delete":
            self._call("delete", self._deleted.pop())
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(" ".join(map(str, (function, *arguments))).encode() + b"\n")
        while True:
            self._process.stdin.flush()
            match self._process.stdout.readline().split():
                case [b"read", address, size]:
                    self._process.stdin.write(ctypes.string_at(int(address), int(size)))
                case [b"write", address, size]:
                    ctypes.memmove(int(address), self._process.stdout.read(int(size)), int(size))
                case [b"done", *result]:
                    return b"".join(result)
                case other:
                    raise AssertionError(f"the other process ended: {other}")


def _address(reference: Any) -> int:
    """Of a structure that `byref` was taken of."""
    return ctypes.addressof(reference._obj)


@contextmanager
def remote_library(command: Sequence[str]) -> Iterator[RemoteLibrary]:
    """The library of the program that `command` runs computes; models made inside must be gone at the end."""
    numbers = [*command, str(running.NUM_POSITIONS)]
    with subprocess.Popen(numbers, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        library = RemoteLibrary(process)
        with pytest.MonkeyPatch.context() as patch:
            for module in (bindings, model, running):
                patch.setattr(module, "shared_library", lambda: library)
            yield library
            gc.collect()
