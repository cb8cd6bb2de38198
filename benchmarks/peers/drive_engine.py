"""Our engine behind stdin and stdout: `python -m benchmarks.peers.drive_engine MODEL PRECISION THREADS`."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.peers.driving import serve_commands, together
from benchmarks.peers.words import Words
from qwen_aio.config import load_settings
from qwen_aio.core import Prompt, Sampling, Text
from qwen_aio.result import TextDelta
from qwen_aio.worker.loading import choose_model, load_weights, prepare_process

LONG, FIRST_SEED = 512, 1_000_000  # prompts of so many tokens, which the benchmark itself never asks for


class Drive:
    """The verbs. Runs its own event loop between commands."""

    def __init__(self, model_dir: str, *, precision: str, threads: int) -> None:
        from qwen_aio.engine.config import EngineLimits
        from qwen_aio.engine.load import LoadedModel, make_engine
        from qwen_aio.engine.service import EngineService

        asked = {"model": model_dir, "engine": "qwen", "precision": precision, "force_precision": "true"}
        settings = load_settings(asked)
        with ThreadPoolExecutor(max_workers=1) as passing:  # see qwen_aio/worker/loading.py
            weights = passing.submit(load_weights, settings, choose_model(settings), threads=threads).result()
        assert weights.precision_record.precision == precision, weights.precision_record
        assert isinstance(weights.model, LoadedModel)
        limits = EngineLimits()
        self._words = Words.load(Path(model_dir))
        self._service = EngineService(make_engine(weights.model, limits, threads=threads))
        self._num_slots = limits.num_slots(weights.model.model.token_bytes)
        self._runner = asyncio.Runner()
        self._runner.run(self._start())

    @property
    def verbs(self) -> dict[str, Callable[..., dict[str, Any]]]:
        return {"prefill": self.prefill, "decode": self.decode}

    def prefill(self, prompt: list[int]) -> dict[str, float]:
        """Seconds until the first token."""
        started_s = time.perf_counter()
        self._runner.run(self._stream(prompt, new=1))
        return {"seconds": time.perf_counter() - started_s}

    def decode(self, prompts: list[list[int]], new: int) -> dict[str, Any]:
        """Greedy answers to all prompts at once: speed, tokens a step gave, and the first answer's ids."""
        return self._runner.run(self._together(prompts, new))

    async def _start(self) -> None:
        """Ready, and all memory written to once, as that of a server which has run for a while."""
        self._service.start()
        for number in range(self._num_slots // LONG + 1):
            await self._stream(self._words.fresh(LONG, seed=FIRST_SEED + number), new=1)

    async def _together(self, prompts: Sequence[list[int]], new: int) -> dict[str, Any]:
        before = self._service.snapshot()
        streams = await asyncio.gather(*(self._stream(prompt, new=new) for prompt in prompts))
        after = self._service.snapshot()
        told = together([[(moment_s, len(ids)) for moment_s, ids in stream] for stream in streams])
        steps = after.steps - before.steps
        return {
            **told,
            "tokens_per_step": (after.generated_tokens - before.generated_tokens) / steps,
            "ids": [token for _, ids in streams[0] for token in ids],
        }

    async def _stream(self, prompt: Sequence[int], *, new: int) -> list[tuple[float, tuple[int, ...]]]:
        asked = Prompt(head=(), turns=(), body=(Text(self._words.text(prompt)),))
        greedy = Sampling(max_tokens=new, temperature=0, top_p=1, top_k=0, repetition_penalty=1)
        outputs = self._service.generate("peers", asked, greedy)
        return [(time.perf_counter(), delta.token_ids) async for delta in outputs if isinstance(delta, TextDelta)]


def main() -> None:
    model_dir, precision, threads = sys.argv[1:]
    prepare_process(int(threads))
    serve_commands(Drive(model_dir, precision=precision, threads=int(threads)).verbs)


if __name__ == "__main__":
    main()
