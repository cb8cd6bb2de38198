"""A model that costs what the given one costs and says what words.py lays down, on every engine, in every precision.

Random weights would repeat themselves when read greedily, which flatters prompt lookup and proves nothing. Here the
embeddings are so large that the layers, computed as ever, hardly change the hidden state, and the output matrix has at
each word the embedding of the word before it. It is untied (one matrix more on disk and in memory), so memory is never
measured with it; the products of a token are the same.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from benchmarks.peers.words import Words

EMBEDDING_SCALE = 400.0  # of 0.02: the sum of what 24 random layers add stays far below it
EMBEDDING, OUTPUT = "model.embed_tokens.weight", "lm_head.weight"


def write_talking_model(model_dir: Path, out: Path, words: Words) -> None:
    """config.json, tokenizer.json and model.safetensors into `out`. `model_dir` holds a random_model."""
    weights = load_file(model_dir / "model.safetensors")
    embedding = weights[EMBEDDING]
    output = (torch.randn(embedding.shape, generator=torch.Generator().manual_seed(1)) * 0.02).to(embedding.dtype)
    before, after = torch.tensor(words.successors).unbind(1)
    output[after] = embedding[before]
    weights |= {OUTPUT: output, EMBEDDING: embedding * EMBEDDING_SCALE}
    config = json.loads((model_dir / "config.json").read_text()) | {"tie_word_embeddings": False}
    (out / "config.json").write_text(json.dumps(config, indent=2))
    (out / "tokenizer.json").write_bytes((model_dir / "tokenizer.json").read_bytes())
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
