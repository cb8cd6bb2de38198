"""A model folder -> an Engine, or what its two precisions have to say.

The one place where torch is told how many threads it may use.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from qwen_aio.core import Precision
from qwen_aio.engine.config import EngineLimits, ModelConfig
from qwen_aio.engine.engine import Engine
from qwen_aio.engine.model.forward import Qwen2
from qwen_aio.engine.model.heap import trim_heap
from qwen_aio.engine.model.weights import Checkpoint, load_fp32
from qwen_aio.engine.quant.comparison import Comparison, compare
from qwen_aio.engine.quant.int8_copy import CopyPlace
from qwen_aio.engine.quant.int8_weights import Int8Weights, load_int8
from qwen_aio.engine.quant.quantise import Quantised, readings
from qwen_aio.engine.requests import Score
from qwen_aio.engine.text.tokenizer import Tokenizer
from qwen_aio.errors import InvalidModel


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A checkpoint in memory. Nobody writes to it, so that processes forked after loading share one copy."""

    model: Qwen2
    tokenizer: Tokenizer


@dataclass(frozen=True, eq=False)
class Folder:
    """A model folder that was looked into; its weights are not read yet."""

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
        """Read when it is asked for. Raises InvalidModel."""
        tokenizer, most = Tokenizer.load(self.path), self.config.vocab_size
        if tokenizer.vocab_size > most:
            raise InvalidModel(f"{self.path}: the tokenizer has {tokenizer.vocab_size} tokens, the model only {most}")
        return tokenizer

    def int8_weights(self, place: CopyPlace | None) -> Int8Weights:
        """Those of the copy at `place`, which is made if need be. Raises InvalidModel."""
        if place is None:
            return self._quantised()
        if (copy := place.find()) is None:
            place.keep(self._quantised(), self.config)
            copy = place.find()
        return copy or self._quantised()

    def _quantised(self) -> Int8Weights:
        return Quantised(self.checkpoint, self.config, readings(self.tokenizer, self.config))


def load_model(
    model_dir: Path, *, max_context: int, threads: int, precision: Precision = "fp32", place: CopyPlace | None = None
) -> LoadedModel:
    """The checkpoint in `model_dir`, for texts of up to `max_context` tokens. Raises InvalidModel.

    Int8 weights come from `place` or are left there. With one thread nothing is started that a fork would lose; of a
    copy that is there nothing is computed either.
    """
    torch.set_num_threads(threads)
    folder = Folder.open(model_dir)
    num_positions = min(max_context, folder.config.max_positions)
    with ThreadPoolExecutor(max_workers=1) as beside:  # most of packing leaves a core to the tokenizer
        tokenizer = beside.submit(lambda: folder.tokenizer)
        if precision == "fp32":
            model = load_fp32(folder.checkpoint, folder.config, num_positions=num_positions)
        else:
            model = load_int8(folder.int8_weights(place), folder.config, num_positions=num_positions)
    trim_heap()
    return LoadedModel(model, tokenizer.result())


def compare_precisions(model_dir: Path, questions: Sequence[Score], *, threads: int, place: CopyPlace) -> Comparison:
    """What the checkpoint in `model_dir` says in fp32 and in int8; the int8 weights are left at `place`.

    Raises InvalidModel, and for questions InvalidRequest, ContextTooSmall.
    """
    torch.set_num_threads(threads)
    folder = Folder.open(model_dir)
    weights = folder.int8_weights(place)
    return compare(folder.checkpoint, weights, folder.config, folder.tokenizer, questions)


def make_engine(loaded: LoadedModel, limits: EngineLimits, *, threads: int) -> Engine:
    """An engine over a loaded model; `limits.max_context` is what it was loaded for. Raises InvalidSettings."""
    torch.set_num_threads(threads)
    return Engine(loaded.model, loaded.tokenizer, limits)


def load_engine(model_dir: Path, limits: EngineLimits, *, threads: int, precision: Precision = "fp32") -> Engine:
    """The engine over the checkpoint in `model_dir`. Raises InvalidModel, InvalidSettings."""
    loaded = load_model(model_dir, max_context=limits.max_context, threads=threads, precision=precision)
    return make_engine(loaded, limits, threads=threads)
