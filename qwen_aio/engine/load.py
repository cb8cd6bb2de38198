"""A model folder -> an Engine, or a Comparison of its two precisions.

The one place that chooses between the two forward passes, and that sets the number of torch's threads.
"""

from __future__ import annotations

import ctypes
import logging
import sys
from collections import abc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from qwen_aio.core import Precision
from qwen_aio.engine.config import EngineLimits, ModelConfig
from qwen_aio.engine.engine import Engine
from qwen_aio.engine.forward_model import ForwardModel
from qwen_aio.engine.model.checkpoint import Checkpoint
from qwen_aio.engine.model.forward import Qwen2
from qwen_aio.engine.model.weights import ModelWeights, load_qwen2
from qwen_aio.engine.native.bindings import TORCH, choose_kernel
from qwen_aio.engine.native.model import NativeQwen, PackedModel
from qwen_aio.engine.quant.comparison import Comparison, compare
from qwen_aio.engine.quant.int8_copy import CopyPlace
from qwen_aio.engine.quant.packing import packed
from qwen_aio.engine.quant.quantise import Quantised, calibration_texts
from qwen_aio.engine.requests import Score
from qwen_aio.engine.text.tokenizer import Tokenizer
from qwen_aio.errors import InvalidModel

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
        torch.set_num_threads(threads)
        return self.model


@dataclass(frozen=True, eq=False)
class Folder:
    """A checked model folder; its weights are not read yet."""

    path: Path
    config: ModelConfig
    checkpoint: Checkpoint

    @classmethod
    def open(cls, path: Path) -> Folder:
        """Raises InvalidModel."""
        if not path.is_dir():
            raise InvalidModel(f"no model folder at {path}")
        config = ModelConfig.load(path)
        return cls(path, config, Checkpoint(path, config))

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Read on first use. Raises InvalidModel."""
        tokenizer, most = Tokenizer.load(self.path), self.config.vocab_size
        if tokenizer.vocab_size > most:
            raise InvalidModel(f"{self.path}: the tokenizer has {tokenizer.vocab_size} tokens, the model only {most}")
        return tokenizer

    def int8_weights(self, place: CopyPlace | None) -> ModelWeights:
        """The weights in the copy at `place`, which is made if missing. Raises InvalidModel."""
        if place is None:
            return self._quantised()
        if (copy := place.find()) is None:
            place.keep(self._quantised(), self.config)
            copy = place.find()
        return copy or self._quantised()

    def _quantised(self) -> ModelWeights:
        return Quantised(self.checkpoint, self.config, calibration_texts(self.tokenizer, self.config))


def load_model(
    model_dir: Path, *, max_context: int, threads: int, precision: Precision = "fp32", place: CopyPlace | None = None
) -> LoadedModel:
    """The checkpoint in `model_dir`, for texts of up to `max_context` tokens. Raises InvalidModel, InvalidSettings.

    Int8 weights are read from the copy at `place`, or kept there. With one thread, no thread is
    left that a fork would lose.
    """
    torch.set_num_threads(threads)
    folder = Folder.open(model_dir)
    kernel = choose_kernel(folder.config)
    logger.info("%s", kernel)
    num_positions = min(max_context, folder.config.max_positions)
    with ThreadPoolExecutor(max_workers=1) as beside:  # packing leaves a core to the tokenizer
        tokenizer = beside.submit(lambda: folder.tokenizer)
        weights = folder.checkpoint if precision == "fp32" else folder.int8_weights(place)
        model = _model(weights, folder.config, kernel=kernel.name, num_positions=num_positions)
    _trim_heap()
    return LoadedModel(model, tokenizer.result())


def compare_precisions(
    model_dir: Path, questions: abc.Sequence[Score], *, threads: int, place: CopyPlace
) -> Comparison:
    """The checkpoint in `model_dir` in fp32 and in int8; the int8 weights are kept at `place`.

    Raises InvalidModel, and for questions InvalidRequest, ContextTooSmall.
    """
    torch.set_num_threads(threads)
    folder = Folder.open(model_dir)
    weights = folder.int8_weights(place)
    return compare(folder.checkpoint, weights, folder.config, folder.tokenizer, questions)


def make_engine(loaded: LoadedModel, limits: EngineLimits, *, threads: int) -> Engine:
    """An engine over a model loaded for `limits.max_context`. Raises InvalidSettings."""
    return Engine(loaded.with_threads(threads), loaded.tokenizer, limits)


def load_engine(model_dir: Path, limits: EngineLimits, *, threads: int, precision: Precision = "fp32") -> Engine:
    """The engine over the checkpoint in `model_dir`. Raises InvalidModel, InvalidSettings."""
    loaded = load_model(model_dir, max_context=limits.max_context, threads=threads, precision=precision)
    return make_engine(loaded, limits, threads=threads)


def _model(weights: ModelWeights, config: ModelConfig, *, kernel: str, num_positions: int) -> Qwen2 | PackedModel:
    """Raises InvalidModel."""
    if kernel == TORCH:
        return load_qwen2(weights, config, num_positions=num_positions)
    return PackedModel(config, packed(weights, config, kernel=kernel), kernel, num_positions)


def _trim_heap() -> None:
    """Return freed memory to the system (glibc): loading leaves hundreds of megabytes."""
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)
