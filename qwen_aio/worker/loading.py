"""Settings -> a loaded, warmed and checked engine.

The order matters: threads are set before torch is imported, the fixed prompts are computed before the golden
cases use them, and nobody is served before the golden cases hold.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from qwen_aio.config import Settings, home, state_dir
from qwen_aio.core import Precision, Task
from qwen_aio.machine.cores import usable_cores
from qwen_aio.models.find import ModelFolder, find_model, model_sha
from qwen_aio.tasks.template import PromptTemplate
from qwen_aio.worker.golden import check_golden
from qwen_aio.worker.golden_book import GoldenBook
from qwen_aio.worker.precision import choose_precision, copy_place, digest_of_questions
from qwen_aio.worker.precision_record import PrecisionRecord, PrecisionRecords

if TYPE_CHECKING:
    from qwen_aio.engine.load import LoadedModel
    from qwen_aio.engine.service import EngineService


@dataclass(frozen=True)
class Weights:
    """A model in memory, and the fingerprint of the files it came from."""

    model: LoadedModel
    sha: str
    verdict: PrecisionRecord  # in which precision, and why


@dataclass(frozen=True)
class LoadedEngine:
    """A model that answers."""

    engine: EngineService
    sha: str
    golden: dict[str, str]
    verdict: PrecisionRecord  # in which precision, and why


def choose_model(settings: Settings) -> ModelFolder:
    """The model folder this run takes. Raises InvalidModel."""
    return find_model(settings.model, home=home())


def told_model(model: ModelFolder) -> str:
    """The one line that says which model was taken and why."""
    kind = "the bundled demonstration model" if model.is_bundled else f"the model in {model.path}"
    return f"model {model.name}: {kind} ({model.chosen_by})"


def prepare_process(threads: int | None) -> int:
    """Set what must be set before torch is imported; the number of threads the model gets."""
    count = threads or usable_cores()
    os.environ |= {"OMP_NUM_THREADS": str(count), "TOKENIZERS_PARALLELISM": "false"}
    return count


def load_weights(settings: Settings, model: ModelFolder, *, threads: int) -> Weights:
    """The weights of `model` in the precision that suits it. Raises InvalidModel, InvalidTask.

    With one thread, nothing is started that a fork would lose.
    """
    with ThreadPoolExecutor(max_workers=1) as beside:  # to hash the files takes about as long as to import torch
        hashing = beside.submit(records_of, settings, model)
        # Here and not above: importing torch takes seconds, and --help should not.
        from qwen_aio.engine.load import load_model
        from qwen_aio.engine.model.linear import why_no_int8

    records = hashing.result()
    place = copy_place(records)
    verdict = choose_precision(settings, model, records, threads=threads, why_no_int8=why_no_int8)
    has_to_quantise = verdict.precision == "int8" and not place.is_current()
    with records.alone() if has_to_quantise else nullcontext():
        loaded_model = load_model(
            model.path,
            max_context=settings.max_context,
            threads=threads,
            precision=verdict.precision,
            place=place,
        )
    return Weights(loaded_model, records.model_sha, verdict)


def records_of(settings: Settings, model: ModelFolder) -> PrecisionRecords:
    """What is remembered of `model`, compared by the golden cases there are now. Raises InvalidModel, InvalidTask."""
    return PrecisionRecords(state_dir() / "int8", model_sha(model.path), digest_of_questions(settings))


@asynccontextmanager
async def loaded_engine(
    settings: Settings,
    tasks: Mapping[str, Task],
    model: ModelFolder,
    *,
    threads: int,
    weights: Weights | None = None,
) -> AsyncIterator[LoadedEngine]:
    """The engine of `model`, ready to serve `tasks`; it ends with the context. `weights`: those already in memory.

    Raises InvalidModel, InvalidSettings, GoldenMismatch.
    """
    # A thread that has computed keeps helpers as long as it lives, and OpenMP lets helpers spin only while there
    # are no more of them than cores. So whoever loads has to be gone before the engine's thread computes.
    passing = ThreadPoolExecutor(max_workers=1, thread_name_prefix="loading")
    try:
        make = asyncio.get_running_loop().run_in_executor
        if weights is None:
            weights = await make(passing, partial(load_weights, settings, model, threads=threads))
        engine = await make(passing, _make_engine, settings, weights, threads)
        passing.shutdown()  # takes no time: it has nothing left to do
    finally:
        passing.shutdown(wait=False)  # a load cannot be broken off, but nobody on the event loop waits for its end
    engine.start()
    try:
        for task in tasks.values():
            await engine.pin(PromptTemplate(task).head)
        book = golden_book(model, weights.sha, weights.verdict.precision)
        golden = await check_golden(engine, tasks, book, policy=settings.golden)
        yield LoadedEngine(engine, weights.sha, golden, weights.verdict)
    finally:
        await engine.close()


def golden_book(model: ModelFolder, sha: str, precision: Precision) -> GoldenBook:
    """What `model` answered before to the golden cases."""
    shipped = model.path / "golden" if model.is_bundled else None
    return GoldenBook(sha, precision, own=state_dir() / "golden", shipped=shipped)


def _make_engine(settings: Settings, weights: Weights, threads: int) -> EngineService:
    from qwen_aio.engine.config import EngineLimits
    from qwen_aio.engine.load import make_engine
    from qwen_aio.engine.service import EngineService

    limits = EngineLimits(
        max_context=settings.max_context,
        kv_mb=settings.kv_mb,
        max_batch_tokens=settings.max_batch_tokens,
        max_queue=settings.max_queue,
    )
    return EngineService(make_engine(weights.model, limits, threads=threads))
