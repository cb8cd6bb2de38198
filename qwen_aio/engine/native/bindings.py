"""The C++ library: found, loaded and called through ctypes, which frees the interpreter's lock meanwhile.

The structures are those of native/kernel.h and native/model.h, field by field, with a C before their names.
"""

from __future__ import annotations

import ctypes
import os
from ctypes import POINTER, Structure, c_bool, c_char_p, c_float, c_int, c_void_p
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from qwen_aio.engine.config import ModelConfig
from qwen_aio.errors import InvalidSettings

PATH = Path(__file__).with_name("libqwen_aio.so")
VARIABLE = "QWEN_AIO_KERNEL"  # the name of the kernel that is to run
TORCH = "torch"  # the name of the forward pass without the library
PANEL = 32  # columns of a product that are computed together
SLOTS = 16  # slots whose keys are stored together
GROUP = 32  # inputs whose int4 weights share a factor


class CShape(Structure):
    """The numbers of a ModelConfig that the forward pass needs."""

    _fields_ = (
        ("num_layers", c_int),
        ("hidden_size", c_int),
        ("intermediate_size", c_int),
        ("num_heads", c_int),
        ("num_kv_heads", c_int),
        ("head_dim", c_int),
        ("rms_norm_eps", c_float),
    )


class CMatrix(Structure):
    """The right side of a product, in panels."""

    _fields_ = (
        ("num_columns", c_int),
        ("num_inputs", c_int),
        ("num_passes", c_int),
        ("floats", c_void_p),
        ("int8s", c_void_p),
        ("int4s", c_void_p),
        ("factors", c_void_p),
        ("scales", c_void_p),
        ("sums", c_void_p),
        ("bias", c_void_p),
    )


class CLayer(Structure):
    """Matrices and vectors of one layer."""

    _fields_ = (
        ("attention_norm", c_void_p),
        ("qkv", CMatrix),
        ("query_norm", c_void_p),
        ("key_norm", c_void_p),
        ("attention_output", CMatrix),
        ("mlp_norm", c_void_p),
        ("gate_up", CMatrix),
        ("down", CMatrix),
    )


class CWeights(Structure):
    """Everything that a model computes with."""

    _fields_ = (
        ("shape", CShape),
        ("layers", POINTER(CLayer)),
        ("embedding", CMatrix),
        ("output", CMatrix),
        ("norm", c_void_p),
        ("cosines", c_void_p),
        ("sines", c_void_p),
    )


class CSpan(Structure):
    """Consecutive rows of a step that belong to one sequence."""

    _fields_ = (("first_row", c_int), ("num_rows", c_int), ("num_before", c_int), ("slots", c_void_p))


class CBatch(Structure):
    """The rows of one step."""

    _fields_ = (
        ("num_rows", c_int),
        ("ids", c_void_p),
        ("positions", c_void_p),
        ("num_spans", c_int),
        ("spans", POINTER(CSpan)),
        ("num_wanted", c_int),
        ("wanted", c_void_p),
    )


class CMemory(Structure):
    """Keys and values of all layers."""

    _fields_ = (("numbers", c_void_p), ("num_slots", c_int), ("is_half", c_bool))


LAYOUT = [PANEL, SLOTS, GROUP, *map(ctypes.sizeof, (CShape, CMatrix, CLayer, CWeights, CSpan, CBatch, CMemory))]


@dataclass(frozen=True)
class KernelChoice:
    """What computes the forward pass, and why."""

    name: str  # of a kernel of the library, or "torch"
    why: str

    def __str__(self) -> str:
        return f"kernel {self.name}: {self.why}"


def choose_kernel(config: ModelConfig) -> KernelChoice:
    """The kernel for a model: the one that QWEN_AIO_KERNEL names, or the best one here.

    Raises InvalidSettings where there is none of that name.
    """
    asked = os.environ.get(VARIABLE, "")
    if asked == TORCH:
        return KernelChoice(TORCH, f"asked for by {VARIABLE}")
    why_torch = _why_no_library() or _why_unfit(config)
    if why_torch and not asked:
        return KernelChoice(TORCH, why_torch)
    name: bytes | None = None if why_torch else shared_library().qwen_aio_kernel(asked.encode())
    if name is None:
        reason = why_torch or "this processor runs no kernel of that name"
        raise InvalidSettings(f"{VARIABLE} is {asked!r}, but {reason}")
    return KernelChoice(name.decode(), f"asked for by {VARIABLE}" if asked else "the best of this processor")


def weights_layout(kernel: str) -> str:
    """The name of the order in which a kernel, or torch, takes int8 weights."""
    return "rows" if kernel == TORCH else f"panels{shared_library().qwen_aio_together(kernel.encode())}"


@cache
def shared_library() -> ctypes.CDLL:
    """Raises OSError where it was not built, cannot be loaded, or is of another version."""
    loaded = ctypes.CDLL(str(PATH))
    try:
        _declare(loaded)
        is_ours = loaded.qwen_aio_layout()[: len(LAYOUT)] == LAYOUT
    except AttributeError:
        is_ours = False
    if not is_ours:
        raise OSError(f"{PATH} is of another version; install again")
    return loaded


def _declare(loaded: ctypes.CDLL) -> None:
    """Raises AttributeError if a function is missing."""
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "qwen_aio_kernel": (c_char_p, [c_char_p]),
        "qwen_aio_together": (c_int, [c_char_p]),
        "qwen_aio_layout": (POINTER(c_int), []),
        "qwen_aio_new": (c_void_p, [POINTER(CWeights), c_char_p, c_int]),
        "qwen_aio_delete": (None, [c_void_p]),
        "qwen_aio_forward": (c_bool, [c_void_p, POINTER(CBatch), POINTER(CMemory), c_void_p]),
        "qwen_aio_logits": (c_bool, [c_void_p, c_void_p, c_int, c_int, c_int, c_void_p]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments


def _why_no_library() -> str | None:
    if not PATH.exists():
        return "the kernels were not built: at installation there was no C++ compiler, or one that is too old"
    try:
        shared_library()
    except OSError as exc:
        return f"the kernels cannot be loaded: {exc}"
    return None


def _why_unfit(config: ModelConfig) -> str | None:
    """Why the kernels do not compute a model of this shape: they take numbers by sixteen, columns by 32."""
    for name, unit in (("hidden_size", PANEL), ("intermediate_size", PANEL // 2), ("head_dim", PANEL // 2)):
        if (size := getattr(config, name)) % unit:
            return f"{name} {size} is no multiple of {unit}"
    return None
