"""The start that is asked about: its settings, and what follows from them without loading a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from qwen_aio.cluster.plan import ClusterPlan, plan_cluster
from qwen_aio.config import PAGE_PORT, Settings, prompts_dir
from qwen_aio.core import Precision, Task
from qwen_aio.engine.choice import EngineChoice
from qwen_aio.engine.config import ModelConfig
from qwen_aio.engine.native.bindings import TORCH, KernelChoice, choose_kernel
from qwen_aio.machine.cores import usable_cores
from qwen_aio.models.find import ModelFolder
from qwen_aio.startup.phases import phase
from qwen_aio.tasks.loader import load_tasks
from qwen_aio.worker.golden_book import GoldenBook, GoldenRecord
from qwen_aio.worker.loading import choose_model, engine_of, golden_book, records_of, sha_of
from qwen_aio.worker.memory_need import MemoryNeed, need_of, sized
from qwen_aio.worker.precision import choose_foreign_precision, stated_precision
from qwen_aio.worker.precision_record import PrecisionRecord


@dataclass(frozen=True)
class Start:
    """Of a cluster, or of one server by itself; what it reads is read once. Its members raise SetupError."""

    settings: Settings
    plan: ClusterPlan | None  # None: one server by itself

    @classmethod
    def of(cls, settings: Settings, *, is_cluster: bool) -> Start:
        """Raises InvalidSettings."""
        return cls(settings, plan_cluster(settings) if is_cluster else None)

    def __str__(self) -> str:
        if self.plan:
            return f"as qwen-aio cluster with {self.num_workers} workers"
        return "as qwen-aio serve, one server by itself"

    @property
    def num_workers(self) -> int:
        return len(self.plan.workers) if self.plan else 1

    @property
    def num_threads(self) -> int:
        """Of all workers together."""
        each = self.plan.workers[0].threads if self.plan else self.settings.threads or usable_cores()
        return self.num_workers * each

    @property
    def addresses(self) -> list[tuple[str, int, str]]:
        """As ClusterPlan.addresses."""
        if self.plan:
            return self.plan.addresses
        return [(self.settings.host, self.settings.port or PAGE_PORT, "--port")]

    @cached_property
    def model(self) -> ModelFolder:
        return choose_model(self.settings)

    @cached_property
    def tasks(self) -> dict[str, Task]:
        return load_tasks(prompts_dir(self.settings))

    @cached_property
    def engine(self) -> EngineChoice:
        return engine_of(self.settings, self.model)

    @cached_property
    def kernel(self) -> KernelChoice:
        if self.engine.kind == "transformers":
            return KernelChoice(TORCH, "transformers computes with it")
        return choose_kernel(ModelConfig.load(self.model.path))

    @cached_property
    def model_sha(self) -> str:
        """Reads the weights, unless an earlier start has."""
        with phase("hashing the model's files"):
            return sha_of(self.settings, self.model)

    @cached_property
    def precision(self) -> PrecisionRecord | None:
        """What is stated, or an earlier start chose; None where one has yet to choose, or torch has to be asked."""
        if self.engine.kind == "transformers":
            return choose_foreign_precision(self.settings)
        stated = stated_precision(self.settings, None)
        if stated is not None or self.kernel.name == TORCH:
            return stated
        return records_of(self.settings, self.model, sha=self.model_sha).read()

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Those that the model may be computed in."""
        if self.settings.precision == "int4":
            return ("int4",)
        return (self.precision.precision,) if self.precision else ("int8", "fp32")

    @property
    def need(self) -> MemoryNeed:
        shares = self.plan is not None and self.plan.shares_weights and self.engine.kind == "qwen"
        settings = sized(self.settings, self.model, num_workers=self.num_workers)
        return need_of(settings, self.model, num_workers=self.num_workers if self.plan else 0, shares_weights=shares)

    @property
    def golden_books(self) -> list[GoldenBook]:
        """One for each precision, but int8 by torch, which has two forms that torch alone tells apart."""
        kernel = self.kernel.name
        known = [each for each in self.precisions if (each, kernel) != ("int8", TORCH)]
        return [golden_book(self.settings, self.model, self.model_sha, each, kernel=kernel) for each in known]

    @property
    def golden_records(self) -> Mapping[str, Mapping[str, GoldenRecord | None]]:
        """Precision -> task -> what a start would compare its answers with."""
        return {
            book.precision: {name: book.read(task) for name, task in self.tasks.items()} for book in self.golden_books
        }
