"""One checkpoint of each family, with its engine and with transformers' own classes as the oracle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from qwen_aio.engine.config import EngineLimits
from qwen_aio.engine.foreign.engine import TransformersEngine
from qwen_aio.engine.foreign.load import LoadedForeign, load_foreign, make_foreign_engine
from tests.engine.foreign.families import FAMILIES, Family, make_checkpoint_of


@dataclass(frozen=True)
class Example:
    """A checkpoint, loaded both ways."""

    family: Family
    folder: Path
    loaded: LoadedForeign
    tokenizer: PreTrainedTokenizerFast
    oracle: PreTrainedModel

    def engine(self, **limits: int) -> TransformersEngine:
        """A fresh engine; keywords are those of EngineLimits."""
        return make_foreign_engine(self.loaded, EngineLimits(**({"max_context": 256, "kv_mb": 1} | limits)), threads=1)


LoadExample = Callable[[str], Example]


@pytest.fixture(scope="session")
def load_example(tmp_path_factory: pytest.TempPathFactory) -> LoadExample:
    examples: dict[str, Example] = {}

    def load(name: str) -> Example:
        if name not in examples:
            folder = make_checkpoint_of(FAMILIES[name], tmp_path_factory.mktemp(name))
            examples[name] = Example(
                FAMILIES[name],
                folder,
                load_foreign(folder, threads=1, precision="fp32"),
                PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True),
                AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval(),
            )
        return examples[name]

    return load


@pytest.fixture(params=sorted(FAMILIES))
def example(request: pytest.FixtureRequest, load_example: LoadExample) -> Example:
    return load_example(request.param)
