"""The tensors of a Qwen2 or Qwen3 checkpoint, read one by one by their names.

Reads safetensors only, single or sharded. Each layer is read, converted and released before the
next one, so that the stored form is never in memory as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  numpy learns bfloat16 from it
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from qwen_aio.engine.config import UNPACKED, ModelConfig
from qwen_aio.engine.weights.model_weights import Fp32Array, LayerWeights, paired
from qwen_aio.errors import InvalidModel
from qwen_aio.files import read_text

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PACKED = (".qweight", ".qzeros", ".scales", ".weight_packed", ".absmax")  # tensor names of quantizers
STORED_TYPES = ("F32", "F16", "BF16")
NUM_NAMED = 5  # in an error about many tensors
BLOCK_ROWS = 8192  # of the embedding, converted at once


class Checkpoint:
    """The tensors in a folder, in fp32, read on demand (ModelWeights). No file stays open."""

    def __init__(self, folder: Path, config: ModelConfig) -> None:
        """Raises InvalidModel naming missing, unexpected, misshaped or mistyped tensors."""
        self._config = config
        self._file_of: dict[str, Path] = {}
        expected = dict(_shapes(config))
        for path in _files(folder):
            with _opened(path) as file:
                self._check(path, file, expected)
        missing = expected.keys() - self._file_of.keys()
        if missing:
            raise InvalidModel(f"{folder}: the checkpoint lacks {_names(missing)}")

    def norm(self) -> Fp32Array:
        return self._read("model.norm.weight")

    def embedding(self) -> Fp32Array:
        return self._read("model.embed_tokens.weight")

    def output(self) -> Fp32Array:
        return self._read(self._vocabulary(is_output=True))

    def rows(self, ids: NDArray[np.integer[Any]], *, is_output: bool = False) -> Fp32Array:
        """Rows of the embedding or the output matrix, (n,) -> (n, hidden); reads no other rows."""
        name = self._vocabulary(is_output=is_output)
        with _opened(self._file_of[name]) as file:
            stored = file.get_slice(name)
            return np.concatenate([_fp32(stored[token : token + 1]) for token in ids.tolist()])

    def blocks(self, *, is_output: bool) -> Iterator[tuple[slice, Fp32Array]]:
        """The embedding or the output matrix in blocks: the numbers of the rows, the rows."""
        name = self._vocabulary(is_output=is_output)
        for start in range(0, self._config.vocab_size, BLOCK_ROWS):
            rows = slice(start, min(start + BLOCK_ROWS, self._config.vocab_size))
            with _opened(self._file_of[name]) as file:
                block = _fp32(file.get_slice(name)[rows])
            yield rows, block

    def layer(self, number: int) -> LayerWeights[Fp32Array]:
        at = f"model.layers.{number}."
        return LayerWeights(
            attention_norm=self._read(f"{at}input_layernorm.weight"),
            qkv=self._qkv(f"{at}self_attn.{{}}_proj.weight"),
            qkv_bias=self._qkv(f"{at}self_attn.{{}}_proj.bias") if self._config.has_qkv_bias else None,
            qk_norm=self._qk_norm(f"{at}self_attn.{{}}_norm.weight") if self._config.has_qk_norm else None,
            attention_output=self._read(f"{at}self_attn.o_proj.weight"),
            mlp_norm=self._read(f"{at}post_attention_layernorm.weight"),
            gate_up=np.concatenate([self._read(f"{at}mlp.{name}_proj.weight") for name in ("gate", "up")]),
            down=self._read(f"{at}mlp.down_proj.weight"),
        )

    def _qkv(self, name: str) -> Fp32Array:
        """Of all heads one after another; `name` has a place for q, k and v."""
        q, k, v = (self._read(name.format(letter)) for letter in "qkv")
        return np.concatenate((paired(q, head_dim=self._config.head_dim), paired(k, head_dim=self._config.head_dim), v))

    def _qk_norm(self, name: str) -> Fp32Array:
        """Of every head of q and k, (heads + kv heads, head_dim)."""
        q, k = (paired(self._read(name.format(letter)), head_dim=self._config.head_dim) for letter in "qk")
        return np.concatenate((np.tile(q, (self._config.num_heads, 1)), np.tile(k, (self._config.num_kv_heads, 1))))

    def _vocabulary(self, *, is_output: bool) -> str:
        return "lm_head.weight" if is_output and not self._config.tied else "model.embed_tokens.weight"

    def _read(self, name: str) -> Fp32Array:
        with _opened(self._file_of[name]) as file:
            return _fp32(file.get_tensor(name))

    def _check(self, path: Path, file: Any, expected: dict[str, tuple[int, ...]]) -> None:
        names = [name for name in file.keys() if not _is_idle(name, tied=self._config.tied)]  # noqa: SIM118  no mapping
        unexpected = [name for name in names if name not in expected]
        if any(name.endswith(PACKED) for name in unexpected):
            raise InvalidModel(f"{path} holds quantized weights ({_names(unexpected)}); {UNPACKED}")
        if unexpected:
            raise InvalidModel(f"{path} holds unexpected tensors: {_names(unexpected)}")
        for name in names:
            stored = file.get_slice(name)
            shape = tuple(stored.get_shape())
            if shape != expected[name]:
                raise InvalidModel(f"{name} has shape {shape}; config.json asks for {expected[name]}")
            if stored.get_dtype() not in STORED_TYPES:
                raise InvalidModel(f"{name} is stored as {stored.get_dtype()}; {', '.join(STORED_TYPES)} are read")
            self._file_of[name] = path


def _shapes(config: ModelConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name in the checkpoint -> shape."""
    hidden = config.hidden_size
    yield "model.embed_tokens.weight", (config.vocab_size, hidden)
    yield "model.norm.weight", (hidden,)
    if not config.tied:
        yield "lm_head.weight", (config.vocab_size, hidden)
    for number in range(config.num_layers):
        for name, shape in _layer_shapes(config):
            yield f"model.layers.{number}.{name}", shape


def _layer_shapes(config: ModelConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    hidden, mlp, q_size = config.hidden_size, config.intermediate_size, config.num_heads * config.head_dim
    kv_size = config.num_kv_heads * config.head_dim
    for name, size in (("q", q_size), ("k", kv_size), ("v", kv_size)):
        yield f"self_attn.{name}_proj.weight", (size, hidden)
        if config.has_qkv_bias:
            yield f"self_attn.{name}_proj.bias", (size,)
    if config.has_qk_norm:
        yield "self_attn.q_norm.weight", (config.head_dim,)
        yield "self_attn.k_norm.weight", (config.head_dim,)
    yield "self_attn.o_proj.weight", (hidden, q_size)
    yield "mlp.gate_proj.weight", (mlp, hidden)
    yield "mlp.up_proj.weight", (mlp, hidden)
    yield "mlp.down_proj.weight", (hidden, mlp)
    yield "input_layernorm.weight", (hidden,)
    yield "post_attention_layernorm.weight", (hidden,)


def _files(folder: Path) -> list[Path]:
    if (folder / SINGLE).exists():
        return [folder / SINGLE]
    if (folder / INDEX).exists():
        return _shards(folder)
    raise InvalidModel(f"{folder} holds neither {SINGLE} nor {INDEX}")


def _shards(folder: Path) -> list[Path]:
    try:
        names = set(json.loads(read_text(folder / INDEX))["weight_map"].values())
    except (OSError, ValueError, RecursionError, KeyError, AttributeError, TypeError) as exc:
        raise InvalidModel(f"{folder / INDEX} is damaged: {exc!r}") from exc
    strange = sorted(str(name) for name in names if Path(str(name)).name != name)
    if strange:
        raise InvalidModel(f"{folder / INDEX} points outside its folder: {_names(strange)}")
    missing = sorted(name for name in names if not (folder / name).exists())
    if missing:
        raise InvalidModel(f"{folder} lacks {_names(missing)}, named by {INDEX}; copy or download what is missing")
    return [folder / name for name in sorted(names)]


@contextmanager
def _opened(path: Path) -> Iterator[Any]:  # safetensors has no types
    try:
        with safe_open(path, framework="np") as file:
            yield file
    except (SafetensorError, OSError) as exc:
        raise InvalidModel(f"{path} is damaged: {exc}; copy or download it again") from exc


def _fp32(stored: NDArray[Any]) -> Fp32Array:
    """A new array, never a view of the file."""
    return np.array(stored, np.float32)


def _is_idle(name: str, *, tied: bool) -> bool:
    """True for tensors of some checkpoints that take no part in the computation."""
    return name.endswith("rotary_emb.inv_freq") or (tied and name == "lm_head.weight")


def _names(names: Iterable[str]) -> str:
    listed = sorted(names)
    more = f" and {len(listed) - NUM_NAMED} more" if len(listed) > NUM_NAMED else ""
    return ", ".join(listed[:NUM_NAMED]) + more
