"""A checkpoint's .bin file (`torch.save` of a state dict) -> safetensors. No code in a pickle is run."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from qwen_aio.errors import InvalidModel


def convert_pickle(source: Path, target: Path) -> tuple[str, ...]:
    """Copy the tensors in `source` to `target`; their names. Raises InvalidModel, OSError."""
    try:
        stored = torch.load(source, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as exc:  # an unpickler raises whatever damaged bytes make it do
        why = (str(exc) or type(exc).__name__).splitlines()[0]
        raise InvalidModel(f"{source.name} is damaged, or holds more than tensors, which is not loaded: {why}") from exc
    if not isinstance(stored, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in stored.values()):
        raise InvalidModel(f"{source.name} holds something else than tensors by name; it is no part of a checkpoint")
    try:
        save_file({str(name): tensor.contiguous().clone() for name, tensor in stored.items()}, target)
    except (RuntimeError, ValueError) as exc:
        raise InvalidModel(f"{source.name} holds a tensor that safetensors cannot hold: {exc}") from exc
    return tuple(map(str, stored))
