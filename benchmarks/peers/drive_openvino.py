"""OpenVINO GenAI's continuous batching behind stdin and stdout, in its own environment.

python -m benchmarks.peers.drive_openvino MODEL THREADS plain|lookup
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy
import openvino  # type: ignore[import-not-found]  # stands in an environment of its own
import openvino_genai  # type: ignore[import-not-found]

from benchmarks.peers.driving import serve_commands, together

CACHE_GB = 1
GUESSED, MATCHED = 5, 3  # tokens guessed at once, and that must agree before: OpenVINO's documentation suggests these


class Drive:
    """The verbs over one pipeline."""

    def __init__(self, model_dir: str, *, threads: int, has_lookup: bool) -> None:
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.cache_size = CACHE_GB
        scheduler.enable_prefix_caching = False
        more = {"prompt_lookup": True} if has_lookup else {}
        self._has_lookup = has_lookup
        self._pipeline = openvino_genai.ContinuousBatchingPipeline(
            model_dir, scheduler, "CPU", {"INFERENCE_NUM_THREADS": threads, **more}
        )

    def prefill(self, prompt: list[int]) -> dict[str, float]:
        """Seconds until the first token."""
        started_s = time.perf_counter()
        self._pipeline.generate([_tensor(prompt)], [self._greedy(1, ends=False)])
        return {"seconds": time.perf_counter() - started_s}

    def decode(self, prompts: list[list[int]], new: int) -> dict[str, Any]:
        """Greedy answers to all prompts at once: speed, tokens a step gave, and the first answer's ids."""
        asked = [
            self._pipeline.add_request(number, _tensor(prompt), self._greedy(new, ends=len(prompts) == 1))
            for number, prompt in enumerate(prompts)
        ]
        streams: list[list[tuple[float, list[int]]]] = [[] for _ in asked]
        steps = 0
        while self._pipeline.has_non_finished_requests():
            self._pipeline.step()
            steps += 1
            for stream, handle in zip(streams, asked, strict=True):
                while handle.can_read():
                    ids = [token for output in handle.read().values() for token in output.generated_ids]
                    stream.append((time.perf_counter(), ids))
        told = together([[(moment_s, len(ids)) for moment_s, ids in stream] for stream in streams])
        ids = [[token for _, ids in stream for token in ids] for stream in streams]
        return {**told, "tokens_per_step": sum(map(len, ids)) / steps, "ids": ids[0]}

    def _greedy(self, new: int, *, ends: bool) -> Any:
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = new
        config.do_sample = False
        config.ignore_eos = not ends
        config.eos_token_id = 151645
        if self._has_lookup:
            config.num_assistant_tokens, config.max_ngram_size = GUESSED, MATCHED
        return config


def _tensor(ids: list[int]) -> Any:
    return openvino.Tensor(numpy.array([ids], numpy.int64))


def main() -> None:
    model_dir, threads, mode = sys.argv[1:]
    drive = Drive(model_dir, threads=int(threads), has_lookup=mode == "lookup")
    serve_commands({"prefill": drive.prefill, "decode": drive.decode})


if __name__ == "__main__":
    main()
