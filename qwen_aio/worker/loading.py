"""Settings -> a loaded, warmed and checked engine.

The order matters: threads are set before torch is imported, prefixes are pinned before the golden
cases use them, and the golden cases hold before any request is served. Where the C++ library computes,
and what must be made once for a model is there, torch is not imported at all.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from threading import Event
from typing import TYPE_CHECKING

from qwen_aio.config import Settings
from qwen_aio.core import Precision, Rounded, Task
from qwen_aio.engine.choice import EngineChoice, choose_engine, reads_chat_template
from qwen_aio.engine.config import ModelConfig
from qwen_aio.engine.native.bindings import TORCH, choose_kernel
from qwen_aio.errors import InvalidSettings
from qwen_aio.machine.cores import usable_cores
from qwen_aio.machine.folders import home, state_dir
from qwen_aio.models.find import CHAT_FILES, ModelFolder, find_model, model_sha
from qwen_aio.models.known_hashes import KnownHashes
from qwen_aio.startup.phases import phase
from qwen_aio.tasks.lint import Encoder
from qwen_aio.tasks.template import PromptTemplate
from qwen_aio.worker.golden import check_golden
from qwen_aio.worker.golden_book import GoldenBook
from qwen_aio.worker.precision import choose_foreign_precision, choose_precision, digest_of_questions, is_prepared
from qwen_aio.worker.precision_record import PrecisionRecord, PrecisionRecords

if TYPE_CHECKING:
    from qwen_aio.engine.foreign.load import LoadedForeign
    from qwen_aio.engine.load import LoadedModel
    from qwen_aio.engine.service import EngineService

Prepare = Callable[[Event], None]  # raises CancelledError once the event is set
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Weights:
    """A model in memory, and the hash of its files."""

    model: LoadedModel | LoadedForeign
    sha: str
    precision_record: PrecisionRecord


@dataclass(frozen=True)
class LoadedEngine:
    """A model that answers, and what its golden cases gave, by task."""

    engine: EngineService
    sha: str
    golden: dict[str, str]
    precision_record: PrecisionRecord
    kernel: str  # what computes the forward pass


def choose_model(settings: Settings) -> ModelFolder:
    """The model folder of this run. Raises InvalidModel."""
    return find_model(settings.model, home=home())


def describe_model(model: ModelFolder) -> str:
    """Which model was chosen, and why."""
    kind = "the bundled demonstration model" if model.is_bundled else f"the model in {model.path}"
    return f"model {model.name}: {kind} ({model.chosen_by})"


def engine_of(settings: Settings, model: ModelFolder) -> EngineChoice:
    """What is to compute `model`. Raises InvalidModel."""
    return choose_engine(model.path, asked=settings.engine)


def sha_of(settings: Settings, model: ModelFolder) -> str:
    """The hash of the files that determine what `model` answers. Raises InvalidModel."""
    has_template = reads_chat_template(model.path, engine_of(settings, model).kind)
    known = KnownHashes(state_dir() / "hashes.json")
    return model_sha(model.path, more=CHAT_FILES if has_template else (), known=known)


def encoder_of(settings: Settings, model: ModelFolder) -> Encoder:
    """What counts the tokens of a task's texts. Raises InvalidModel."""
    if engine_of(settings, model).kind == "transformers":
        from qwen_aio.engine.foreign.prompts import TextCounter
        from qwen_aio.engine.foreign.tokenizer import ForeignTokenizer

        return TextCounter(ForeignTokenizer.load(model.path))
    from qwen_aio.engine.text.tokenizer import Tokenizer

    return Tokenizer.load(model.path)


def prepare_process(threads: int | None) -> int:
    """Set the variables that torch reads when it is imported; the model's number of threads."""
    count = threads or usable_cores()
    os.environ |= {"OMP_NUM_THREADS": str(count), "TOKENIZERS_PARALLELISM": "false"}
    return count


def load_weights(
    settings: Settings,
    model: ModelFolder,
    *,
    threads: int,
    prepare: Prepare | None = None,
    given_up: Event | None = None,
) -> Weights:
    """The weights of `model` in the chosen precision. Raises InvalidModel, InvalidSettings, InvalidTask.

    `prepare` makes in another process what must be made once for a model; without it, or where
    that fails, it is made here. It ends early, and with it this, once `given_up` is set. With one
    thread, this starts none that a fork would lose, except for transformers.
    """
    choice = engine_of(settings, model)
    if choice.kind == "transformers":
        logger.warning("%s", choice)
        return _load_foreign_weights(settings, model, threads=threads)
    # Here and not above: --help needs none of it.
    from qwen_aio.engine.load import load_model
    from qwen_aio.engine.weights.folder import Folder

    folder = Folder.open(model.path)
    with ThreadPoolExecutor(max_workers=1) as beside:
        beside.submit(lambda: folder.tokenizer)  # it takes about as long as all the rest; load_model waits for it
        with phase("reading the model's files"):
            records = records_of(settings, model)
        if prepare is not None and not is_prepared(settings, records) and records.can_be_kept():
            prepare(given_up or Event())
        record = choose_precision(settings, model, records, threads=threads)
        has_to_quantise = record.precision != "fp32" and not records.weights.is_current()
        with phase("loading the weights"), records.alone() if has_to_quantise else nullcontext():
            loaded_model = load_model(
                folder,
                max_context=settings.max_context,
                threads=threads,
                precision=record.precision,
                kept=records.weights,
            )
    return Weights(loaded_model, records.model_sha, record)


def _load_foreign_weights(settings: Settings, model: ModelFolder, *, threads: int) -> Weights:
    record = choose_foreign_precision(settings)
    with phase("loading transformers and the weights"), ThreadPoolExecutor(max_workers=1) as beside:
        hashing = beside.submit(sha_of, settings, model)
        from qwen_aio.engine.foreign.load import load_foreign

        loaded = load_foreign(model.path, threads=threads, precision=record.precision)
    return Weights(loaded, hashing.result(), record)


def records_of(settings: Settings, model: ModelFolder, *, sha: str | None = None) -> PrecisionRecords:
    """The records of `model`, which is one of ours; with its hash, reads no weights.

    Raises InvalidModel, InvalidSettings, InvalidTask.
    """
    kernel = choose_kernel(ModelConfig.load(model.path))
    if settings.precision == "int4" and kernel.name == TORCH:
        raise InvalidSettings(f"--precision int4 is computed by the C++ kernels alone; {kernel}", param="precision")
    sha = sha or sha_of(settings, model)
    rounded: Rounded = "int4" if settings.precision == "int4" else "int8"
    return PrecisionRecords(state_dir() / "weights", sha, kernel.name, digest_of_questions(settings), rounded)


@asynccontextmanager
async def loaded_engine(
    settings: Settings,
    tasks: Mapping[str, Task],
    model: ModelFolder,
    *,
    threads: int,
    weights: Weights | None = None,
    prepare: Prepare | None = None,
) -> AsyncIterator[LoadedEngine]:
    """The engine of `model`, ready to serve `tasks`; it ends with the context.

    `weights`: those already in memory. `prepare`: see load_weights.
    Raises InvalidModel, InvalidSettings, GoldenMismatch.
    """
    # A thread that has computed keeps helpers as long as it lives, and OpenMP lets helpers spin
    # only while there are no more of them than cores. So the loading thread must be gone before
    # the engine's thread computes.
    loader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="loading")
    given_up = Event()
    try:
        run = asyncio.get_running_loop().run_in_executor
        if weights is None:
            load = partial(load_weights, settings, model, threads=threads, prepare=prepare, given_up=given_up)
            weights = await run(loader, load)
        engine = await run(loader, _make_engine, settings, weights, threads)
        loader.shutdown()  # returns at once: nothing is left to do
    finally:
        given_up.set()
        loader.shutdown(wait=False)  # a load cannot be cancelled, but the event loop need not wait for its end
    engine.start()
    try:
        kernel, precision = weights.model.kernel, weights.precision_record.precision
        with phase("checking the golden cases"):
            for task in tasks.values():
                await engine.pin(PromptTemplate(task).head)
            book = golden_book(settings, model, weights.sha, precision, kernel=kernel)
            golden = await check_golden(engine, tasks, book, policy=settings.golden)
        yield LoadedEngine(engine, weights.sha, golden, weights.precision_record, kernel)
    finally:
        await engine.close()


def golden_book(settings: Settings, model: ModelFolder, sha: str, precision: Precision, *, kernel: str) -> GoldenBook:
    """The recorded answers of `model` to the golden cases, in what `precision` is by this kernel."""
    own = state_dir() / "golden"
    if engine_of(settings, model).kind == "transformers":
        return GoldenBook(sha, f"{precision} by transformers", own=own, shipped=None)
    shipped = model.path / "golden" if model.is_bundled else None
    return GoldenBook(sha, _arithmetic(precision, kernel), own=own, shipped=shipped)


def _arithmetic(precision: Precision, kernel: str) -> str:
    """How numbers of `precision` come about: int8 and int4 are others by every kernel."""
    if precision == "fp32":
        return "fp32"
    if kernel != TORCH:
        return f"{precision} by {kernel}"
    from qwen_aio.engine.model.linear import arithmetic

    return arithmetic(precision)


def _make_engine(settings: Settings, weights: Weights, threads: int) -> EngineService:
    from qwen_aio.engine.config import EngineLimits
    from qwen_aio.engine.load import LoadedModel, make_engine
    from qwen_aio.engine.service import EngineService

    chosen = {"max_context", "kv_mb", "max_batch_tokens", "max_queue"}
    limits = EngineLimits(**settings.model_dump(include=chosen, exclude_none=True))
    if isinstance(weights.model, LoadedModel):
        return EngineService(make_engine(weights.model, limits, threads=threads))
    from qwen_aio.engine.foreign.load import make_foreign_engine

    return EngineService(make_foreign_engine(weights.model, limits, threads=threads))
