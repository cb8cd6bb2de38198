"""What a model folder says about itself, and how much the engine may use.

Reads config.json and generation_config.json; knows no tensors. Refuses, by name, what the forward
pass would compute wrongly: another architecture, sliding windows, rope scaling, packed weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwen_aio.errors import InvalidModel
from qwen_aio.files import read_text

ARCHITECTURES = {"qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}  # by model_type
MIN_CONTEXT = 128  # tokens; a smaller context is useless
MOST, MOST_LAYERS = 2**31, 1000
NAMES = {"gptq": "GPTQ", "awq": "AWQ", "fp8": "FP8"}
CACHED_TOKEN_BYTES = 400  # of Python objects in the radix cache: its node, its ids, its place among the children
UNPACKED = "use the original checkpoint in bf16, fp16 or fp32 (int8 is made of it here)"


@dataclass(frozen=True)
class EngineLimits:
    """How much one engine may hold at once. Tokens unless the name says otherwise."""

    max_context: int = 2048  # prompt and answer together
    kv_mb: int = 512  # keys and values of running and cached tokens
    max_running: int = 10  # sequences computed at the same time ...
    max_answers: int = 8  # ... of which so many may be answers: the rest is always free for decisions
    max_batch_tokens: int = 256  # rows of one step; longer prompts go in chunks (scheduler.py)
    max_draft_rows: int = 8  # rows up to which draft tokens fill a step that only decodes; 0: none
    max_queue: int = 256  # requests waiting beyond the running ones

    def num_slots(self, token_bytes: int) -> int:
        """The number of tokens that `kv_mb` mebibytes hold, if each takes `token_bytes`."""
        return self.kv_mb * 2**20 // token_bytes


@dataclass(frozen=True)
class ModelConfig:
    """Shape and constants of a Qwen2 or Qwen3 checkpoint."""

    vocab_size: int  # rows of the output matrix; may exceed the tokenizer's vocabulary
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int  # of Qwen3, hidden_size says nothing about it
    has_qkv_bias: bool  # Qwen2
    has_qk_norm: bool  # Qwen3: every head of q and k is normed before it is rotated
    rope_theta: float
    rms_norm_eps: float
    max_positions: int
    tied: bool  # the output matrix is the embedding
    eos_ids: tuple[int, ...]

    @property
    def num_weights(self) -> int:
        """Numbers in all matrices; the vectors are few."""
        heads = 2 * (self.num_heads + self.num_kv_heads) * self.head_dim
        layer = self.hidden_size * (heads + 3 * self.intermediate_size)
        return self.num_layers * layer + self.vocab_size * self.hidden_size * (1 if self.tied else 2)

    @property
    def token_bytes(self) -> int:
        """Of one token in the cache: fp32 keys and values of every layer, and the cache's own objects."""
        return self.num_layers * 2 * self.num_kv_heads * self.head_dim * 4 + CACHED_TOKEN_BYTES

    @classmethod
    def load(cls, folder: Path) -> ModelConfig:
        """The config of the checkpoint in `folder`. Raises InvalidModel."""
        path = folder / "config.json"
        values = read_config(path)
        generation = folder / "generation_config.json"
        try:
            _refuse_foreign(path, values)
            eos = [*_eos_ids(values), *(_eos_ids(read_config(generation)) if generation.exists() else [])]
            return _from_values(values, eos_ids=tuple(sorted(set(eos))))
        except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as exc:
            raise InvalidModel(f"{path} is incomplete or damaged: {exc!r}") from exc


def read_config(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises InvalidModel."""
    try:
        values = json.loads(read_text(path))
    except (OSError, ValueError, RecursionError) as exc:
        raise InvalidModel(f"{path} is missing or damaged: {exc}") from exc
    if not isinstance(values, dict):
        raise InvalidModel(f"{path} holds no JSON object")
    return values


def _eos_ids(values: Mapping[str, Any]) -> list[int]:
    eos = values.get("eos_token_id")
    if eos is None:
        return []
    return [int(token) for token in eos] if isinstance(eos, list) else [int(eos)]


def why_foreign(values: Mapping[str, Any]) -> str | None:
    """Why the engine of this project does not compute a model with this config; None if it does."""
    family = _family_of(values)
    if family is None:
        found = _stated_architecture(values)
        named = ", ".join(map(str, found)) if isinstance(found, list) else found or "model of no stated architecture"
        ours = f"{ARCHITECTURES['qwen2']} (Qwen1.5, Qwen2, Qwen2.5) and {ARCHITECTURES['qwen3']} (Qwen3)"
        return f"this is a {_printable(str(named))}; our engine computes only {ours}"
    if "auto_map" in values:
        return "it has auto_map, so it is not computed as a plain Qwen"
    if values.get("hidden_act", "silu") != "silu":
        return f"hidden_act is {values['hidden_act']!r}; Qwen uses 'silu'"
    if family == "qwen3" and values.get("attention_bias"):
        return "attention_bias is on; the attention of Qwen3 has no biases"
    if values.get("use_sliding_window") or "sliding_attention" in (values.get("layer_types") or []):
        return "use_sliding_window is on; sliding windows are not supported"
    rope = _rope(values)
    if rope and rope.get("rope_type", rope.get("type")) != "default":
        return f"rope scaling {dict(rope)} is not supported, only plain rotary positions"
    return None


def refuse_quantized(path: Path, values: Mapping[str, Any]) -> None:
    """Raises InvalidModel if the config at `path` is of packed weights."""
    if quantized := values.get("quantization_config") or values.get("quantization"):
        raise InvalidModel(f"{path}: the weights are quantized{_by(quantized)}; {UNPACKED}")


def _refuse_foreign(path: Path, values: Mapping[str, Any]) -> None:
    if (why := why_foreign(values)) is not None:
        raise InvalidModel(f"{path}: {why}; --engine transformers computes more, slowly")
    refuse_quantized(path, values)


def _by(quantized: object) -> str:
    """` with GPTQ to 4 bits`, as far as the config states it."""
    stated = quantized if isinstance(quantized, dict) else {}
    method = stated.get("quant_method")
    bits = stated.get("bits") or (4 if stated.get("load_in_4bit") else 8 if stated.get("load_in_8bit") else None)
    with_method = f" with {_printable(NAMES.get(method, method)[:40])}" if isinstance(method, str) else ""
    return with_method + (f" to {bits} bits" if type(bits) is int else "")


def _printable(text: str) -> str:
    """`text` of a model's author, who could steer the terminal that shows it."""
    return text if text.isprintable() else ascii(text)


def _stated_architecture(values: Mapping[str, Any]) -> Any:
    return values.get("architectures") or values.get("model_type")


def _family_of(values: Mapping[str, Any]) -> str | None:
    """The model_type of an architecture that our engine computes."""
    found = _stated_architecture(values)
    return next((kind for kind, name in ARCHITECTURES.items() if found in ([name], name, kind)), None)


def _rope(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """transformers 5 writes `rope_parameters`, earlier versions `rope_scaling` or null."""
    return values.get("rope_parameters") or values.get("rope_scaling") or {}


def _from_values(values: Mapping[str, Any], *, eos_ids: tuple[int, ...]) -> ModelConfig:
    num_heads = int(values["num_attention_heads"])
    hidden_size = int(values["hidden_size"])
    is_qwen3 = _family_of(values) == "qwen3"
    config = ModelConfig(
        vocab_size=int(values["vocab_size"]),
        hidden_size=hidden_size,
        intermediate_size=int(values["intermediate_size"]),
        num_layers=int(values["num_hidden_layers"]),
        num_heads=num_heads,
        num_kv_heads=int(values.get("num_key_value_heads") or num_heads),
        head_dim=int(values.get("head_dim") or hidden_size // num_heads),
        has_qkv_bias=_flag(values, "attention_bias", default=not is_qwen3),
        has_qk_norm=is_qwen3,
        rope_theta=float(_rope(values).get("rope_theta") or values.get("rope_theta") or 10_000.0),
        rms_norm_eps=float(values.get("rms_norm_eps", 1e-6)),
        max_positions=int(values.get("max_position_embeddings", 32_768)),
        tied=_flag(values, "tie_word_embeddings", default=False),
        eos_ids=eos_ids,
    )
    numbers = {name: value for name, value in vars(config).items() if type(value) in (int, float)}
    if odd := [name for name, value in numbers.items() if not 0 < value < MOST]:
        raise ValueError(f"{', '.join(odd)} must be more than 0, and a number that a model has")
    if config.num_layers > MOST_LAYERS:
        raise ValueError(f"{config.num_layers} layers are more than any model has")
    if config.num_heads % config.num_kv_heads:
        raise ValueError(f"{config.num_heads} heads cannot share {config.num_kv_heads} key-value heads evenly")
    if config.head_dim % 2:
        raise ValueError(f"head_dim {config.head_dim} is odd: rotary positions turn pairs")
    return config


def _flag(values: Mapping[str, Any], name: str, *, default: bool) -> bool:
    flag = values.get(name, default)
    if not isinstance(flag, bool):
        raise ValueError(f"{name} is {flag!r}, neither true nor false")
    return flag
