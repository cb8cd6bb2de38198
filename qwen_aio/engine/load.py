"""A model folder -> an Engine. The one place that chooses between the two forward passes.

Imports torch only where torch computes, or where weights in int8 or int4 must still be made.
"""

from __future__ import annotations

import ctypes
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen_aio.core import Precision
from qwen_aio.engine.config import EngineLimits
from qwen_aio.engine.engine import Engine
from qwen_aio.engine.forward_model import ForwardModel
from qwen_aio.engine.native.bindings import TORCH, choose_kernel
from qwen_aio.engine.native.model import NativeQwen, PackedModel
from qwen_aio.engine.native.packing import packed
from qwen_aio.engine.text.tokenizer import Tokenizer
from qwen_aio.engine.weights.array_file import ArrayFile
from qwen_aio.engine.weights.folder import Folder
from qwen_aio.engine.weights.model_weights import Array

if TYPE_CHECKING:
    from qwen_aio.engine.model.forward import Qwen2

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A checkpoint in memory. Read only: processes forked after loading share one copy."""

    model: Qwen2 | PackedModel
    tokenizer: Tokenizer

    @property
    def kernel(self) -> str:
        """What computes its forward pass."""
        return self.model.kernel if isinstance(self.model, PackedModel) else TORCH

    def with_threads(self, threads: int) -> ForwardModel[Any]:
        """The forward pass in so many threads."""
        if isinstance(self.model, PackedModel):
            return NativeQwen(self.model, threads=threads)
        _set_torch_threads(threads)
        return self.model


def load_model(
    folder: Folder, *, max_context: int, threads: int, precision: Precision = "fp32", kept: ArrayFile | None = None
) -> LoadedModel:
    """The checkpoint in `folder`, for texts of up to `max_context` tokens. Raises InvalidModel, InvalidSettings.

    Weights in int8 or int4 are read from `kept`, or made and kept there. With one thread, no thread is
    left that a fork would lose.
    """
    kernel = choose_kernel(folder.config)
    logger.info("%s", kernel)
    num_positions = min(max_context, folder.config.max_positions)
    model: Qwen2 | PackedModel
    if kernel.name == TORCH:
        model = _in_torch(folder, precision, kept, num_positions=num_positions, threads=threads)
    else:
        arrays = _packed(folder, precision, kept, kernel=kernel.name, threads=threads)
        model = PackedModel(folder.config, arrays, kernel.name, num_positions)
    tokenizer = folder.tokenizer
    _trim_heap()
    return LoadedModel(model, tokenizer)


def make_engine(loaded: LoadedModel, limits: EngineLimits, *, threads: int) -> Engine:
    """An engine over a model loaded for `limits.max_context`. Raises InvalidSettings."""
    return Engine(loaded.with_threads(threads), loaded.tokenizer, limits)


def load_engine(model_dir: Path, limits: EngineLimits, *, threads: int, precision: Precision = "fp32") -> Engine:
    """The engine over the checkpoint in `model_dir`. Raises InvalidModel, InvalidSettings."""
    loaded = load_model(Folder.open(model_dir), max_context=limits.max_context, threads=threads, precision=precision)
    return make_engine(loaded, limits, threads=threads)


def _packed(
    folder: Folder, precision: Precision, kept: ArrayFile | None, *, kernel: str, threads: int
) -> Mapping[str, Array]:
    """Raises InvalidModel."""
    if precision == "fp32":
        return dict(packed(folder.checkpoint, folder.config, kernel=kernel))
    if kept is not None and (arrays := kept.find()) is not None:
        return arrays.together()
    _set_torch_threads(threads)
    from qwen_aio.engine.quant.preparing import made_arrays

    return made_arrays(folder, kernel, kept, "int4" if precision == "int4" else "int8")


def _in_torch(
    folder: Folder, precision: Precision, kept: ArrayFile | None, *, num_positions: int, threads: int
) -> Qwen2:
    """Raises InvalidModel."""
    _set_torch_threads(threads)
    from qwen_aio.engine.model.building import build_qwen2
    from qwen_aio.engine.quant.preparing import int8_weights

    weights = folder.checkpoint if precision == "fp32" else int8_weights(folder, kept)
    return build_qwen2(weights, folder.config, num_positions=num_positions)


def _set_torch_threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


def _trim_heap() -> None:
    """Return freed memory to the system (glibc): loading leaves hundreds of megabytes."""
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)
