"""Where the int8 weights of a model are kept, and what they depend on."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from pathlib import Path

from qwen_aio.engine.native.bindings import TORCH, weights_layout
from qwen_aio.engine.weights.array_file import ArrayFile

# Raise it whenever int8 weights, their products, their file, or their comparison with fp32 change:
# kept weights and kept choices of precision are then made anew. `recipe` covers the numbers below.
VERSION = "2"
SMALL_EMBEDDING = 2**24  # numbers; one with fewer stays in fp32
# Relative error of a matrix's products from which it gets two passes. Rounding the weights and a
# plain input make 0.011 (0.018 where inputs have 63 levels), the heavy-tailed input of a down
# projection 0.025 (0.05). That hardly moves a large model's next token (KL 0.0015 on the shape of
# 0.5B); a small one, with fewer features, changes too many labels (benchmarks/LOG.md).
MAX_ERROR, SMALL_MAX_ERROR = 0.060, 0.012
NUM_CALIBRATION = 12  # sentences; each matrix sees some hundred rows
SENTENCE_TOKENS = 64  # a tokenizer without words makes many of one sentence
SENTENCES = files("qwen_aio.engine") / "sentences.txt"
BYTE_LEVELS = 127  # of an input in bytes, on either side of zero


def int8_file(folder: Path, model_sha: str, kernel: str) -> ArrayFile:
    """The file in `folder` with the weights of the checkpoint of this hash, as `kernel` takes them."""
    layout = weights_layout(kernel)
    identity = {
        "version": VERSION,
        "recipe": recipe(),
        "levels": str(input_levels(kernel)),
        "layout": layout,
        "model_sha": model_sha,
    }
    return ArrayFile(folder / f"{model_sha}-{layout}.safetensors", identity)


def recipe() -> str:
    """A short hash that changes with the sentences and the numbers above."""
    numbers = (SMALL_EMBEDDING, MAX_ERROR, SMALL_MAX_ERROR, NUM_CALIBRATION, SENTENCE_TOKENS)
    return hashlib.sha256(SENTENCES.read_bytes() + repr(numbers).encode()).hexdigest()[:8]


def input_levels(kernel: str) -> int:
    """The levels of inputs on either side of zero, by which the matrices for two passes are found."""
    if kernel != TORCH:
        return BYTE_LEVELS  # AVX2 takes more, and ignores the second pass
    from qwen_aio.engine.model.linear import activation_levels

    return activation_levels()
