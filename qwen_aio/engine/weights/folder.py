"""A model folder, checked, its weights and its tokenizer read when they are needed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from qwen_aio.engine.config import ModelConfig
from qwen_aio.engine.text.tokenizer import Tokenizer
from qwen_aio.engine.weights.checkpoint import Checkpoint
from qwen_aio.errors import InvalidModel


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
