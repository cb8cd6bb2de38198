"""What a step of answers spends outside of the forward pass: scheduler, sampling, text. Without HTTP.

    python -m benchmarks.random_model --tokenizer DIR --out MODEL
    python -m benchmarks.step --model MODEL [--precision int8] [--threads 2] [--streams 8] [--rounds 5]

So many answers go on together, greedy and sampled in turns; their drafting ahead is off. Where the forward pass itself
spends its time, a profiler of the system tells: `perf record -e cpu-clock` before the command, then
`perf report --dso libqwen_aio.so`. Last line of stdout: one JSON object.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.servers import last_line
from qwen_aio.config import load_settings
from qwen_aio.core import Prompt, Sampling, Text
from qwen_aio.engine.config import EngineLimits
from qwen_aio.engine.engine import Engine
from qwen_aio.engine.forward_model import ForwardModel
from qwen_aio.engine.load import LoadedModel
from qwen_aio.engine.requests import Generate
from qwen_aio.engine.scheduling.scheduler import Span
from qwen_aio.worker.loading import choose_model, load_weights

SAMPLINGS = {"greedy": 0.0, "sampled": 0.7}  # name -> temperature
TOKENS, WARM_UP = 64, 8  # of an answer; steps that are not counted
WORDS = 20  # of a prompt


class Timed:
    """A ForwardModel that adds up the seconds spent in it."""

    def __init__(self, model: ForwardModel[Any]) -> None:
        self._model = model
        self.config, self.token_bytes, self.new_pool = model.config, model.token_bytes, model.new_pool
        self.seconds = 0.0

    def forward(self, spans: Sequence[Span], pool: Any) -> NDArray[np.float32]:
        started = time.perf_counter()
        states = self._model.forward(spans, pool)
        self.seconds += time.perf_counter() - started
        return states

    def logits(self, hidden: NDArray[np.float32]) -> NDArray[np.float32]:
        started = time.perf_counter()
        logits = self._model.logits(hidden)
        self.seconds += time.perf_counter() - started
        return logits


def share_outside(
    engine: Engine, model: Timed, *, temperature: float, streams: int, number: int
) -> tuple[float, float]:
    """Milliseconds of a step, and the share of it that is not the forward pass."""
    for stream in range(streams):
        prompt = Prompt((), (), (Text(f"{number} {stream} hello " * WORDS),))
        sampling = Sampling(max_tokens=TOKENS, temperature=temperature)
        engine.add(str(stream), Generate(prompt, sampling), arrived_s=engine.clock())
    for _ in range(WARM_UP):
        engine.step()
    started, model.seconds, steps = time.perf_counter(), 0.0, 0
    while engine.counters.running == streams:
        engine.step()
        steps += 1
    seconds, inside = time.perf_counter() - started, model.seconds
    while engine.has_work:
        engine.step()
    return seconds / steps * 1e3, 1 - inside / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--precision", choices=("fp32", "int8", "int4"), default="int8")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    asked = {"model": str(arguments.model), "precision": arguments.precision, "force_precision": "true"}
    settings = load_settings(asked)
    loaded = load_weights(settings, choose_model(settings), threads=arguments.threads).model
    assert isinstance(loaded, LoadedModel)
    model = Timed(loaded.with_threads(arguments.threads))
    engine = Engine(model, loaded.tokenizer, EngineLimits(max_draft_rows=0))
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for number in range(arguments.rounds):
        for name, temperature in SAMPLINGS.items():
            found[name].append(
                share_outside(engine, model, temperature=temperature, streams=arguments.streams, number=number)
            )
    for name, rounds in found.items():
        shares = sorted(share for _, share in rounds)
        step_ms = median(ms for ms, _ in rounds)
        print(f"{name:8s} step {step_ms:6.2f} ms  outside {median(shares):.3f} ({shares[0]:.3f} to {shares[-1]:.3f})")
    summary = {
        name: {"ms": median(ms for ms, _ in each), "outside": median(s for _, s in each)}
        for name, each in found.items()
    }
    print(last_line({"kernel": loaded.kernel, "streams": arguments.streams, **summary}))


if __name__ == "__main__":
    main()
