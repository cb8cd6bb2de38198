"""Which engine computes a model: ours, or transformers for every other architecture. Loads neither."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from qwen_aio.engine.config import ModelConfig, read_config, why_foreign
from qwen_aio.engine.foreign.size import ForeignSize
from qwen_aio.engine.text.thinking import THINK
from qwen_aio.engine.text.token_codec import REQUIRED_CONTROLS
from qwen_aio.errors import InvalidModel

EngineKind = Literal["qwen", "transformers"]
SLOW_ROAD = "the slow road: correct, but without the speed of the engine for Qwen"


@dataclass(frozen=True)
class EngineChoice:
    """An engine, and why."""

    kind: EngineKind
    why: str

    def __str__(self) -> str:
        return f"engine {self.kind}: {self.why}" + (f"; {SLOW_ROAD}" if self.kind == "transformers" else "")


@dataclass(frozen=True)
class ModelSize:
    """What a model takes, in numbers and bytes."""

    num_weights: int
    max_positions: int
    token_bytes: int  # keys and values of one token, in fp32


def choose_engine(folder: Path, *, asked: str) -> EngineChoice:
    """The engine that is `asked` for; of "auto", ours where it computes the model in `folder`. Raises InvalidModel."""
    if asked == "qwen":
        return EngineChoice("qwen", "asked for")
    if asked == "transformers":
        return EngineChoice("transformers", "asked for")
    why = why_foreign(read_config(folder / "config.json")) or _why_no_chatml(folder / "tokenizer.json")
    return EngineChoice("transformers", why) if why else EngineChoice("qwen", "it computes this architecture")


def reads_chat_template(folder: Path, kind: EngineKind) -> bool:
    """Whether the chat template in `folder` changes answers; ours asks it only about thoughts. Raises InvalidModel."""
    return kind == "transformers" or THINK.encode() in (_written(folder / "tokenizer.json") or b"")


def size_of(folder: Path, kind: EngineKind) -> ModelSize:
    """Raises InvalidModel."""
    if kind == "qwen":
        config = ModelConfig.load(folder)
        return ModelSize(config.num_weights, config.max_positions, config.token_bytes)
    size = ForeignSize.of(folder)
    return ModelSize(size.num_weights, size.max_positions, size.token_numbers * 4)


def _why_no_chatml(path: Path) -> str | None:
    """A Qwen that was trained on other control tokens, as some distilled models are."""
    written = _written(path)
    missing = [token for token in REQUIRED_CONTROLS if written is not None and token.encode() not in written]
    return f"the tokenizer has no {' and no '.join(missing)}" if missing else None


def _written(path: Path) -> bytes | None:
    """The tokenizer's file; None without one. Raises InvalidModel."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise InvalidModel(f"{path} is missing or damaged: {exc}") from exc
