"""Checkpoints with outliers: a scale moved from one matrix to the next. The function stays."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

Tensors = dict[str, Tensor]
FEATURE = 7  # any one


def of_mlp(tensors: Tensors, *, layer: str, factor: float) -> None:
    """One input of `down` is larger."""
    tensors[f"{layer}.mlp.up_proj.weight"][FEATURE] *= factor
    tensors[f"{layer}.mlp.down_proj.weight"][:, FEATURE] /= factor


def of_norms(tensors: Tensors, *, layer: str, factor: float) -> None:
    """One input of q, k, v, gate and up is larger."""
    for norm in ("input", "post_attention"):
        tensors[f"{layer}.{norm}_layernorm.weight"][FEATURE] *= factor
    for name in ("self_attn.q", "self_attn.k", "self_attn.v", "mlp.gate", "mlp.up"):
        tensors[f"{layer}.{name}_proj.weight"][:, FEATURE] /= factor


def with_outliers(checkpoint: Path, target: Path, make: Callable[..., None], *, factor: float) -> Path:
    """A copy of `checkpoint` in `target`, with outliers in every layer."""
    folder = Path(shutil.copytree(checkpoint, target))
    tensors = load_file(folder / "model.safetensors")
    layers = {name.removesuffix(".mlp.up_proj.weight") for name in tensors if name.endswith(".mlp.up_proj.weight")}
    for layer in layers:
        make(tensors, layer=layer, factor=factor)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    return folder
