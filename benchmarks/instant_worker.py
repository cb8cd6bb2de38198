"""A worker whose engine computes nothing: what is left is HTTP. `python -m benchmarks.instant_worker --port P ...`

The real command line, door, routes and heartbeat, with an engine that answers at once behind the seam `load`.
"""

# ruff: noqa: ARG002  this engine looks at nothing it is given

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from qwen_aio.config import load_settings, prompts_dir
from qwen_aio.core import ContextLimits, Prompt, Sampling
from qwen_aio.engine.requests import EngineSnapshot
from qwen_aio.result import Completion, LabelScore, Scores, TextDelta, Timings, Usage
from qwen_aio.serving.transport.server import bind
from qwen_aio.startup import event_loop
from qwen_aio.tasks.loader import load_tasks
from qwen_aio.worker.loading import LoadedEngine, choose_model
from qwen_aio.worker.precision_record import PrecisionRecord
from qwen_aio.worker.worker import WorkerServer

NUM_PIECES, REST_S = 8, 0.005


class InstantEngine:
    """Every label is as likely as the others; every answer has eight pieces, and rests between them as a model would.

    Without the rests all pieces would come at once, and with two cores the one who waits for the first piece would
    not get to run before the last one was made.
    """

    context = ContextLimits(2048, 1024)

    async def score(self, request_id: str, prompt: Prompt, continuations: Sequence[str]) -> Scores:
        scores = tuple(LabelScore(text, -1.0, 1) for text in continuations)
        return Scores(scores, Usage(60, 50, 0), Timings())

    async def generate(
        self,
        request_id: str,
        prompt: Prompt,
        sampling: Sampling,
        *,
        resume: Sequence[int] = (),
        top_logprobs: int | None = None,
        json_schema: str | None = None,
    ) -> AsyncGenerator[TextDelta | Completion, None]:
        for index in range(len(resume), NUM_PIECES):
            await asyncio.sleep(REST_S if index else 0)
            yield TextDelta("piece ", (index,))
        yield Completion("stop", Usage(60, 50, NUM_PIECES), Timings())

    def snapshot(self) -> EngineSnapshot:
        return EngineSnapshot(capacity=8)

    async def wait_failed(self) -> BaseException:
        await asyncio.Event().wait()
        raise AssertionError


@asynccontextmanager
async def load(*_: Any, **__: Any) -> AsyncIterator[LoadedEngine]:
    yield LoadedEngine(InstantEngine(), "", {}, PrecisionRecord("fp32", "nothing is computed"), "none")  # type: ignore[arg-type]  # the part of an engine that a worker uses


def main() -> int:
    """Serve until a signal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--id", default="instant")
    parser.add_argument("--status-dir", required=True)
    arguments = parser.parse_args()
    settings = load_settings({"id": arguments.id, "status_dir": arguments.status_dir, "log_level": "warning"})
    with bind("127.0.0.1", arguments.port) as sock:
        tasks, model = load_tasks(prompts_dir(settings)), choose_model(settings)
        return event_loop.run(WorkerServer(settings, tasks, model, sock=sock, threads=1, load=load).run())


if __name__ == "__main__":
    raise SystemExit(main())
