"""How much memory a checkpoint of any architecture needs, by its files. Reads no tensor and no library."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwen_aio.engine.config import read_config
from qwen_aio.errors import InvalidModel

MAX_HEADER = 2**27  # bytes of a safetensors header


@dataclass(frozen=True)
class ForeignSize:
    """Estimated: each engine measures by itself what a token takes."""

    num_weights: int
    max_positions: int
    token_numbers: int  # keys and values of one token

    @classmethod
    def of(cls, folder: Path) -> ForeignSize:
        """Raises InvalidModel."""
        path = folder / "config.json"
        values = read_config(path)
        values = values.get("text_config", values)  # of a model that sees pictures, too
        try:
            layers = int(values.get("num_hidden_layers") or values.get("num_layers") or values["n_layer"])
            heads = int(values.get("num_attention_heads") or values["n_head"])
            hidden = int(values.get("hidden_size") or values["n_embd"])
            per_head = int(values.get("head_dim") or hidden // heads)
            kept = int(values.get("num_key_value_heads") or heads)
            positions = int(values.get("max_position_embeddings") or 2**31)
            weights = sum(map(_num_numbers, sorted(folder.glob("*.safetensors"))))
        except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, OSError, RecursionError) as exc:
            raise InvalidModel(f"{folder}: config.json or the safetensors are damaged: {exc!r}") from exc
        return cls(weights, positions, 2 * layers * kept * per_head)


def _num_numbers(path: Path) -> int:
    """Numbers in a safetensors file, by its header."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > MAX_HEADER:
            raise ValueError(f"{path.name} has no header of safetensors")
        header: Mapping[str, Any] = json.loads(file.read(length))
    return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
