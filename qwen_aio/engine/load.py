"""A model folder -> an Engine. The one place where torch is told how many threads it may use."""

from __future__ import annotations

from pathlib import Path

import torch

from qwen_aio.engine.config import EngineLimits, ModelConfig
from qwen_aio.engine.engine import Engine
from qwen_aio.engine.model import Qwen2
from qwen_aio.engine.tokenizer import Tokenizer
from qwen_aio.engine.weights import load_weights
from qwen_aio.errors import InvalidModel


def load_engine(model_dir: Path, limits: EngineLimits, *, threads: int) -> Engine:
    """The engine over the checkpoint in `model_dir`. Raises InvalidModel, InvalidSettings."""
    torch.set_num_threads(threads)
    if not model_dir.is_dir():
        raise InvalidModel(f"no model folder at {model_dir}")
    config = ModelConfig.load(model_dir)
    tokenizer = Tokenizer.load(model_dir)
    if tokenizer.vocab_size > config.vocab_size:
        raise InvalidModel(
            f"{model_dir}: the tokenizer has {tokenizer.vocab_size} tokens, the model only {config.vocab_size}"
        )
    model = Qwen2(config, num_positions=min(limits.max_context, config.max_positions))
    load_weights(model, model_dir)
    return Engine(model, tokenizer, limits)
