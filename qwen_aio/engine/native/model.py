"""A ForwardModel (engine/forward_model.py) computed by the C++ library.

Its numbers do not depend on who shares a step, on how a prompt is cut or cached, or on the number
of threads: logits are the same to the last bit.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qwen_aio.engine.config import CACHED_TOKEN_BYTES, ModelConfig
from qwen_aio.engine.kv.lazy_memory import lazy_zeros
from qwen_aio.engine.native.bindings import (
    PANEL,
    SLOTS,
    CBatch,
    CLayer,
    CMatrix,
    CMemory,
    CShape,
    CSpan,
    CWeights,
    shared_library,
)
from qwen_aio.engine.scheduling.scheduler import Span
from qwen_aio.engine.weights.model_weights import Array


@dataclass(frozen=True, eq=False)
class PackedModel:
    """Weights in the kernel's layout. Read only: processes forked after loading share one copy."""

    config: ModelConfig
    arrays: Mapping[str, Array]  # "norm", "layers.0.qkv.int8s", "layers.0.qkv.scales", ...
    kernel: str
    num_positions: int

    @property
    def is_int8(self) -> bool:
        """Keys and values are in fp16 then."""
        return "layers.0.qkv.int8s" in self.arrays

    @property
    def token_bytes(self) -> int:
        """Memory of one cached token: its keys and values, and the cache's own objects."""
        config = self.config
        numbers = config.num_layers * 2 * config.num_kv_heads * config.head_dim
        return numbers * (2 if self.is_int8 else 4) + CACHED_TOKEN_BYTES


class NativePool:
    """Keys and values of all layers, in fp16 beside int8 weights, else in fp32: see Memory in native/model.h."""

    def __init__(self, config: ModelConfig, num_slots: int, *, is_half: bool) -> None:
        num_slots += -num_slots % SLOTS
        num_numbers = config.num_layers * 2 * config.num_kv_heads * num_slots * config.head_dim
        self._numbers = np.frombuffer(lazy_zeros(num_numbers * (2 if is_half else 4)), dtype=np.uint8)
        self.memory = CMemory(self._numbers.ctypes.data, num_slots, is_half)


class NativeQwen:
    """The forward pass over a PackedModel, with threads of its own."""

    def __init__(self, packed: PackedModel, *, threads: int) -> None:
        self._packed = packed
        self._threads = threads
        self._vectors: list[NDArray[np.float32]] = []  # that the library reads and nothing else holds
        self._weights = self._described()
        self._handle: int | None = None
        self._owner = 0  # the process that has the threads

    @property
    def config(self) -> ModelConfig:
        return self._packed.config

    @property
    def kernel(self) -> str:
        return self._packed.kernel

    @property
    def token_bytes(self) -> int:
        """Memory of one cached token: its keys and values, and the cache's own objects."""
        return self._packed.token_bytes

    def new_pool(self, num_slots: int) -> NativePool:
        """Memory for the keys and values of so many tokens."""
        return NativePool(self.config, num_slots, is_half=self._packed.is_int8)

    def forward(self, spans: Sequence[Span], pool: NativePool) -> NDArray[np.float32]:
        """Final hidden states of the logit rows, (num_logit_rows, hidden). Fills the pool. Raises MemoryError."""
        ids = np.array([token for span in spans for token in span.sequence.ids[span.start : span.end]], np.int32)
        positions = np.array([at for span in spans for at in span.sequence.positions(span.start, span.end)], np.int32)
        row_spans, slots = _row_spans(spans)
        wanted = np.array(_logit_rows(spans), np.int32)
        states = np.empty((len(wanted), self.config.hidden_size), np.float32)
        batch = CBatch(
            len(ids), ids.ctypes.data, positions.ctypes.data, len(row_spans), row_spans, len(wanted), wanted.ctypes.data
        )
        memory = ctypes.byref(pool.memory)
        if not shared_library().qwen_aio_forward(self._model(), ctypes.byref(batch), memory, states.ctypes.data):
            raise MemoryError(f"no memory for a step of {len(ids)} rows")
        del slots  # until now, the library read them
        return states

    def logits(self, hidden: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, hidden) -> (n, vocab), a new array. Raises MemoryError."""
        return self.logits_of(hidden, slice(0, self.config.vocab_size))

    def logits_of(self, hidden: NDArray[np.float32], tokens: slice) -> NDArray[np.float32]:
        """(n, hidden) -> (n, len(tokens)), a new array; `tokens` begin at a multiple of PANEL. Raises MemoryError."""
        hidden = np.ascontiguousarray(hidden)
        num_tokens = tokens.stop - tokens.start
        num_columns = num_tokens + -num_tokens % PANEL
        logits = np.empty((len(hidden), num_columns), np.float32)
        arguments = (hidden.ctypes.data, len(hidden), tokens.start, num_columns, logits.ctypes.data)
        if not shared_library().qwen_aio_logits(self._model(), *arguments):
            raise MemoryError(f"no memory for the logits of {len(hidden)} rows")
        return logits[:, :num_tokens]

    def _model(self) -> int:
        """The library's model, made by the process that computes: a fork has no threads."""
        if self._handle is None or self._owner != os.getpid():
            kernel = self._packed.kernel.encode()
            handle: int | None = shared_library().qwen_aio_new(ctypes.byref(self._weights), kernel, self._threads)
            if handle is None:
                raise MemoryError(f"no memory or no room for {self._threads} threads")
            self._handle, self._owner = handle, os.getpid()
            # Not at exit: the engine's thread may be computing then.
            weakref.finalize(self, _delete, handle, self._owner).atexit = False
        return self._handle

    def _described(self) -> CWeights:
        """Where everything is."""
        config = self.config
        shape = CShape(
            config.num_layers,
            config.hidden_size,
            config.intermediate_size,
            config.num_heads,
            config.num_kv_heads,
            config.head_dim,
            config.rms_norm_eps,
        )
        layers = (CLayer * config.num_layers)(*map(self._layer, range(config.num_layers)))
        output = self._matrix("output")
        cosines, sines = _rotations(config, self._packed.num_positions)
        return CWeights(
            shape,
            layers,
            output if config.tied else self._matrix("embedding"),
            output,
            self._vector("norm"),
            self._kept(cosines),
            self._kept(sines),
        )

    def _layer(self, number: int) -> CLayer:
        at = f"layers.{number}."
        return CLayer(
            self._vector(f"{at}attention_norm"),
            self._matrix(f"{at}qkv"),
            self._vector(f"{at}query_norm"),
            self._vector(f"{at}key_norm"),
            self._matrix(f"{at}attention_output"),
            self._vector(f"{at}mlp_norm"),
            self._matrix(f"{at}gate_up"),
            self._matrix(f"{at}down"),
        )

    def _matrix(self, name: str) -> CMatrix:
        arrays = self._packed.arrays
        floats, int8s = arrays.get(f"{name}.floats"), arrays.get(f"{name}.int8s")
        if floats is not None:
            num_panels, num_inputs, panel = floats.shape
        else:
            assert int8s is not None
            num_panels, num_steps, panel, together = int8s.shape
            num_inputs = num_steps * together
        return CMatrix(
            num_panels * panel,
            num_inputs,
            2 if f"{name}.two_pass" in arrays else 1,
            None if floats is None else floats.ctypes.data,
            None if int8s is None else int8s.ctypes.data,
            self._vector(f"{name}.scales"),
            self._vector(f"{name}.sums"),
            self._vector(f"{name}.bias"),
        )

    def _vector(self, name: str) -> int | None:
        vector = self._packed.arrays.get(name)
        return None if vector is None else self._kept(vector)

    def _kept(self, vector: NDArray[np.float32]) -> int:
        self._vectors.append(np.ascontiguousarray(vector))
        return self._vectors[-1].ctypes.data


def _row_spans(spans: Sequence[Span]) -> tuple[ctypes.Array[CSpan], list[NDArray[np.int32]]]:
    """The spans as the library takes them, and the slots that they point to.

    A row of a label tree is a span of its own: it sees the prompt and its ancestors, as if they were all there is.
    """
    parts: list[tuple[int, int, NDArray[np.int32]]] = []  # rows, tokens before them, slots
    for span in spans:
        tree, num_prompt, slots = span.sequence.tree, span.sequence.num_prompt, span.lease.slot_array
        end = span.end if tree is None else min(span.end, num_prompt)
        if end > span.start:
            parts.append((end - span.start, span.start, slots))
        if tree is not None:
            for row in range(max(span.start, num_prompt), span.end):
                ancestors = [num_prompt + each for each in reversed(tree.ancestors(row - num_prompt))]
                seen = np.concatenate((slots[:num_prompt], slots[ancestors]))
                parts.append((1, len(seen) - 1, seen))
    row_spans = (CSpan * len(parts))()
    first_row = 0
    for index, (num_rows, num_before, slots) in enumerate(parts):
        row_spans[index] = CSpan(first_row, num_rows, num_before, slots.ctypes.data)
        first_row += num_rows
    return row_spans, [slots for _, _, slots in parts]


def _logit_rows(spans: Sequence[Span]) -> list[int]:
    """Their numbers in the step."""
    rows: list[int] = []
    first = 0
    for span in spans:
        rows.extend(row - span.start + first for row in span.logit_rows)
        first += span.count
    return rows


def _rotations(config: ModelConfig, num_positions: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cosines and sines of the angles of every rotary pair, (num_positions, head_dim / 2) each."""
    exponents = np.arange(0, config.head_dim, 2, dtype=np.float32) / np.float32(config.head_dim)
    # In double precision, then rounded: numpy's functions of single precision differ between processors.
    frequencies = (1.0 / config.rope_theta ** exponents.astype(np.float64)).astype(np.float32)
    angles = np.outer(np.arange(num_positions, dtype=np.float32), frequencies).astype(np.float64)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def _delete(handle: int, owner: int) -> None:
    if os.getpid() == owner:  # elsewhere its threads are missing, and it would wait for them
        shared_library().qwen_aio_delete(handle)
