"""transformers' plain `generate` behind stdin and stdout, in its own environment: the published way to decide.

python -m benchmarks.peers.drive_generate MODEL THREADS
"""

from __future__ import annotations

import sys
import time

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.peers.driving import serve_commands


def main() -> None:
    model_dir, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)

    def decide(prompt: str, new: int) -> dict[str, float]:
        """Seconds for the whole prompt and `new` tokens."""
        started_s = time.perf_counter()
        inputs = tokenizer(prompt, return_tensors="pt")
        model.generate(  # type: ignore[misc]  # its own annotation is wrong
            **inputs, max_new_tokens=new, min_new_tokens=new, do_sample=False
        )
        return {"seconds": time.perf_counter() - started_s}

    serve_commands({"decide": decide})


if __name__ == "__main__":
    main()
