"""A checkpoint of Qwen1.5-0.5B's shape with random weights and the true tokenizer: it takes as long as the real one.

    python -m benchmarks.random_model --tokenizer DIR --out DIR

DIR of --tokenizer holds Qwen's tokenizer.json (or tokenizer.json.gz). What such a model says is noise, and its golden
cases are recorded as such; only its speed and memory mean anything. Takes 0.9 GB on disk (bf16).
"""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path

import torch
from safetensors.torch import save_file

VOCAB, HIDDEN, MLP, LAYERS = 151936, 1024, 2816, 24
CONFIG = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "vocab_size": VOCAB,
    "hidden_size": HIDDEN,
    "intermediate_size": MLP,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "max_position_embeddings": 32768,
    "rope_theta": 1e6,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "eos_token_id": 151645,
    "bos_token_id": 151643,
}


def random_weights(seed: int) -> dict[str, torch.Tensor]:
    """Every tensor of CONFIG, in bf16, drawn as transformers initialises (normal, 0.02)."""
    generator = torch.Generator().manual_seed(seed)

    def matrix(rows: int, columns: int) -> torch.Tensor:
        return (torch.randn(rows, columns, generator=generator) * 0.02).to(torch.bfloat16)

    weights = {
        "model.embed_tokens.weight": matrix(VOCAB, HIDDEN),
        "model.norm.weight": torch.ones(HIDDEN, dtype=torch.bfloat16),
    }
    for layer in range(LAYERS):
        at = f"model.layers.{layer}"
        for name in ("input_layernorm", "post_attention_layernorm"):
            weights[f"{at}.{name}.weight"] = torch.ones(HIDDEN, dtype=torch.bfloat16)
        for name in ("q", "k", "v"):
            weights[f"{at}.self_attn.{name}_proj.weight"] = matrix(HIDDEN, HIDDEN)
            weights[f"{at}.self_attn.{name}_proj.bias"] = torch.zeros(HIDDEN, dtype=torch.bfloat16)
        weights[f"{at}.self_attn.o_proj.weight"] = matrix(HIDDEN, HIDDEN)
        for name, shape in {"gate": (MLP, HIDDEN), "up": (MLP, HIDDEN), "down": (HIDDEN, MLP)}.items():
            weights[f"{at}.mlp.{name}_proj.weight"] = matrix(*shape)
    return weights


def copy_tokenizer(source: Path, out: Path) -> None:
    """Qwen's tokenizer.json into `out`."""
    packed = source / "tokenizer.json.gz"
    content = gzip.decompress(packed.read_bytes()) if packed.exists() else (source / "tokenizer.json").read_bytes()
    (out / "tokenizer.json").write_bytes(content)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    copy_tokenizer(arguments.tokenizer, out)
    (out / "config.json").write_text(json.dumps(CONFIG, indent=2))
    save_file(random_weights(arguments.seed), out / "model.safetensors")
    print(f"written to {out}")


if __name__ == "__main__":
    main()
