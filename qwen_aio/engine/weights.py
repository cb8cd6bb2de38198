"""Tensors of a checkpoint -> the model's own tensors, one at a time, so that nothing is in memory twice.

Reads safetensors only, whole or sharded. Knows the names Qwen2 checkpoints use and where each one belongs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from qwen_aio.engine.model import Layer, Qwen2
from qwen_aio.errors import InvalidModel

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
FOREIGN_SUFFIXES = (".bin", ".pt", ".pth", ".gguf", ".ckpt", ".h5")
STORED_TYPES = (torch.float32, torch.float16, torch.bfloat16)
NUM_NAMED = 5  # in an error about many tensors


def load_weights(model: Qwen2, folder: Path) -> None:
    """Fill `model` from the checkpoint in `folder`. Raises InvalidModel naming what is missing, extra or misshaped."""
    places = dict(_places(model))
    for path in _files(folder):
        _load_file(path, places, tied=model.config.tied)
    if places:
        raise InvalidModel(f"{folder}: the checkpoint lacks {_names(places)}")


def _places(model: Qwen2) -> Iterator[tuple[str, Tensor]]:
    """Name in the checkpoint -> the tensor, or the slice of one, that it fills."""
    yield "model.embed_tokens.weight", model.embedding
    yield "model.norm.weight", model.norm.weight
    if not model.config.tied:
        yield "lm_head.weight", model.output.weight
    for number, layer in enumerate(model.layers):
        for name, place in _layer_places(model, layer):
            yield f"model.layers.{number}.{name}", place


def _layer_places(model: Qwen2, layer: Layer) -> Iterator[tuple[str, Tensor]]:
    config, qkv = model.config, layer.attention.qkv
    assert qkv.bias is not None
    sizes = [heads * config.head_dim for heads in (config.num_heads, config.num_kv_heads, config.num_kv_heads)]
    for name, weight, bias in zip("qkv", torch.split(qkv.weight, sizes), torch.split(qkv.bias, sizes), strict=True):
        yield f"self_attn.{name}_proj.weight", weight
        yield f"self_attn.{name}_proj.bias", bias
    gate, up = layer.mlp.gate_up.weight.chunk(2)
    yield "self_attn.o_proj.weight", layer.attention.output.weight
    yield "mlp.gate_proj.weight", gate
    yield "mlp.up_proj.weight", up
    yield "mlp.down_proj.weight", layer.mlp.down.weight
    yield "input_layernorm.weight", layer.attention_norm.weight
    yield "post_attention_layernorm.weight", layer.mlp_norm.weight


def _files(folder: Path) -> list[Path]:
    if (folder / SINGLE).exists():
        return [folder / SINGLE]
    if (folder / INDEX).exists():
        return _shards(folder)
    foreign = sorted(path.name for path in folder.glob("*") if path.suffix in FOREIGN_SUFFIXES)
    if foreign:
        raise InvalidModel(
            f"{folder} holds {_names(foreign)}, which is not loaded: such files can run code or lose precision."
            " Convert it where you trust it: model.save_pretrained(folder, safe_serialization=True)"
        )
    raise InvalidModel(f"{folder} holds neither {SINGLE} nor {INDEX}")


def _shards(folder: Path) -> list[Path]:
    try:
        names = set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as exc:
        raise InvalidModel(f"{folder / INDEX} is damaged: {exc!r}") from exc
    strange = sorted(str(name) for name in names if Path(str(name)).name != name)
    if strange:
        raise InvalidModel(f"{folder / INDEX} points outside its folder: {_names(strange)}")
    missing = sorted(name for name in names if not (folder / name).exists())
    if missing:
        raise InvalidModel(f"{folder} lacks {_names(missing)}, named by {INDEX}")
    return [folder / name for name in sorted(names)]


def _load_file(path: Path, places: dict[str, Tensor], *, tied: bool) -> None:
    """Fill and strike off the places that this file knows."""
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            unexpected = [name for name in names if name not in places and not _is_idle(name, tied=tied)]
            if unexpected:
                raise InvalidModel(f"{path} holds unexpected tensors: {_names(unexpected)}")
            for name in names:
                if name in places:
                    _fill(name, places.pop(name), file.get_tensor(name))
    except (SafetensorError, OSError) as exc:
        raise InvalidModel(f"{path} is damaged: {exc}") from exc


def _is_idle(name: str, *, tied: bool) -> bool:
    """Tensors some checkpoints carry that have no part in the computation."""
    return name.endswith("rotary_emb.inv_freq") or (tied and name == "lm_head.weight")


def _fill(name: str, place: Tensor, stored: Tensor) -> None:
    if stored.shape != place.shape:
        raise InvalidModel(f"{name} has shape {tuple(stored.shape)}; config.json asks for {tuple(place.shape)}")
    if stored.dtype not in STORED_TYPES:
        raise InvalidModel(f"{name} is stored as {stored.dtype}; fp32, fp16 and bf16 are read")
    place.copy_(stored)  # converts to fp32 on the way


def _names(names: Iterable[str]) -> str:
    listed = sorted(names)
    more = f" and {len(listed) - NUM_NAMED} more" if len(listed) > NUM_NAMED else ""
    return ", ".join(listed[:NUM_NAMED]) + more
