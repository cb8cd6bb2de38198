"""The memory that a server needs, logged before it takes any: Linux kills a process without it."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass

from qwen_aio.config import Settings, prompts_dir
from qwen_aio.core import Precision, Text
from qwen_aio.engine.choice import EngineKind, ModelSize, choose_engine, size_of
from qwen_aio.engine.config import EngineLimits
from qwen_aio.machine.memory import MIB, AvailableMemory, available_memory
from qwen_aio.models.find import ModelFolder
from qwen_aio.tasks.loader import load_tasks
from qwen_aio.tasks.template import PromptTemplate

# MB, measured (benchmarks/LOG.md, "Memory"), and rounded up.
PROCESS_MB = 400  # Python, the tokenizer, one step, and torch where it computes
TRANSFORMERS_MB = 150  # its modules
FORK_MB = 150  # that a forked worker writes to, without its keys and values
LIGHT_MB = 300  # a cluster's balancer and page
LEAST_KV_MB, MOST_KV_MB = 8, 512  # unless somebody asks for more
BYTES: Mapping[Precision, int] = {
    "int4": 1,
    "int8": 1,
    "bf16": 2,
    "fp32": 4,
}  # int4: no embedding is
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MemoryNeed:
    """MB of 2**20 bytes, at most."""

    weights: Mapping[Precision, int]  # of each precision that may be taken, the smaller first
    kv: int
    rest: int
    smaller: Precision | None  # one that may be asked for instead, and needs less

    def __str__(self) -> str:
        totals = " or ".join(f"{self.total(precision)} MB in {precision}" for precision in self.weights)
        weights = " or ".join(map(str, self.weights.values()))
        return f"up to {totals} (weights {weights}, keys and values {self.kv}, everything else {self.rest})"

    @property
    def savings(self) -> str:
        """What to do where that is too much."""
        smaller = f"--precision {self.smaller}, " if self.smaller else ""
        return f"{smaller}a smaller --kv-mb, fewer workers or a smaller model need less"

    def total(self, precision: Precision) -> int:
        return self.weights[precision] + self.kv + self.rest

    def fits(self, available: AvailableMemory) -> bool:
        """In the smallest precision that may be taken."""
        return min(map(self.total, self.weights)) <= available.mb


def need_of(
    settings: Settings, model: ModelFolder, *, num_workers: int = 0, shares_weights: bool = False
) -> MemoryNeed:
    """The need of a cluster of `num_workers`; with 0, of one server by itself.

    Raises InvalidModel.
    """
    servers = num_workers or 1
    copies = 1 if shares_weights else servers
    kind, size = _engine_and_size(settings, model)
    process_mb = PROCESS_MB + (TRANSFORMERS_MB if kind == "transformers" else 0)
    numbers = copies * size.num_weights
    rest = copies * process_mb + (servers - copies) * FORK_MB + (LIGHT_MB if num_workers else 0)
    weights = {precision: numbers * BYTES[precision] // MIB for precision in _precisions(settings, kind)}
    kv_mb = servers * (settings.kv_mb or MOST_KV_MB)
    return MemoryNeed(weights, kv_mb + (kv_mb // 4 if kind == "transformers" else 0), rest, _smaller(settings, kind))


def sized(settings: Settings, model: ModelFolder, *, num_workers: int = 1) -> Settings:
    """`settings` with a number for `kv_mb`, for one of `num_workers`.

    Without one it is what all running sequences and the pinned prompts need and a quarter more for what is
    kept of earlier ones, but at most MOST_KV_MB, and at most the worker's share of a quarter of the
    available memory. Raises InvalidModel, InvalidTask.
    """
    if settings.kv_mb is not None:
        return settings
    _, size = _engine_and_size(settings, model)
    running = EngineLimits.max_running * min(settings.max_context, size.max_positions)
    needed = math.ceil((running + _num_pinned(settings)) * size.token_bytes * 1.25 / MIB)
    share = available_memory().mb // 4 // num_workers
    return settings.model_copy(update={"kv_mb": max(LEAST_KV_MB, min(needed, MOST_KV_MB, share))})


def _engine_and_size(settings: Settings, model: ModelFolder) -> tuple[EngineKind, ModelSize]:
    kind = choose_engine(model.path, asked=settings.engine).kind
    return kind, size_of(model.path, kind)


def _precisions(settings: Settings, kind: EngineKind) -> tuple[Precision, ...]:
    """Those that may be taken, the smaller first."""
    if settings.precision != "auto":
        return (settings.precision,)
    return ("fp32",) if kind == "transformers" else ("int8", "fp32")


def _smaller(settings: Settings, kind: EngineKind) -> Precision | None:
    least: Precision = "bf16" if kind == "transformers" else "int8"
    return None if settings.precision == "int4" or least in _precisions(settings, kind) else least


def _num_pinned(settings: Settings) -> int:
    """Tokens of the heads of all tasks, at most: one of text is a byte or more."""
    tasks = load_tasks(prompts_dir(settings)).values()
    segments = [segment for task in tasks for segment in PromptTemplate(task).head]
    return sum(len(segment.text.encode()) if isinstance(segment, Text) else 1 for segment in segments)


def log_memory(settings: Settings, model: ModelFolder) -> None:
    """Log what this process will need, as a warning where that is not available.

    Raises InvalidModel.
    """
    need, available = need_of(settings, model), available_memory()
    logger.log(logging.INFO if need.fits(available) else logging.WARNING, memory_message(need, available))


def memory_message(need: MemoryNeed, available: AvailableMemory) -> str:
    """The need, what is available, and what to do if that is not enough."""
    line = f"memory: needs {need}; {available}"
    if need.fits(available):
        return line
    return f"{line}, which is not enough: the system may kill the program without a word; {need.savings}"
