"""A model folder -> an Engine. The one place where torch is told how many threads it may use."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from qwen_aio.engine.config import EngineLimits, ModelConfig
from qwen_aio.engine.engine import Engine
from qwen_aio.engine.model import Qwen2
from qwen_aio.engine.tokenizer import Tokenizer
from qwen_aio.engine.weights import load_weights
from qwen_aio.errors import InvalidModel


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A checkpoint in memory. Nobody writes to it, so that processes forked after loading share one copy."""

    model: Qwen2
    tokenizer: Tokenizer


def load_model(model_dir: Path, *, max_context: int, threads: int) -> LoadedModel:
    """The checkpoint in `model_dir`, for texts of up to `max_context` tokens. Raises InvalidModel.

    With one thread nothing is started that a fork would lose.
    """
    torch.set_num_threads(threads)
    if not model_dir.is_dir():
        raise InvalidModel(f"no model folder at {model_dir}")
    config = ModelConfig.load(model_dir)
    tokenizer = Tokenizer.load(model_dir)
    if tokenizer.vocab_size > config.vocab_size:
        raise InvalidModel(
            f"{model_dir}: the tokenizer has {tokenizer.vocab_size} tokens, the model only {config.vocab_size}"
        )
    model = Qwen2(config, num_positions=min(max_context, config.max_positions))
    load_weights(model, model_dir)
    return LoadedModel(model, tokenizer)


def make_engine(loaded: LoadedModel, limits: EngineLimits, *, threads: int) -> Engine:
    """An engine over a loaded model; `limits.max_context` is what it was loaded for. Raises InvalidSettings."""
    torch.set_num_threads(threads)
    return Engine(loaded.model, loaded.tokenizer, limits)


def load_engine(model_dir: Path, limits: EngineLimits, *, threads: int) -> Engine:
    """The engine over the checkpoint in `model_dir`. Raises InvalidModel, InvalidSettings."""
    loaded = load_model(model_dir, max_context=limits.max_context, threads=threads)
    return make_engine(loaded, limits, threads=threads)
