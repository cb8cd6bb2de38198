"""`python -m training.golden`: writes down what the bundled model answers to the golden cases, in each arithmetic.

To be run once after the weights or the tasks have changed; from then on every start must reproduce it. Any processor
with AVX2 can do it: what VNNI computes is computed exactly, and fbgemm can be told to do without VNNI.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import torch
from torch import Tensor

from qwen_aio.core import Precision, Task
from qwen_aio.engine.config import EngineLimits
from qwen_aio.engine.load import load_engine
from qwen_aio.engine.model.linear import arithmetic
from qwen_aio.engine.native.bindings import TORCH
from qwen_aio.engine.service import EngineService
from qwen_aio.models.find import BUNDLED, model_sha
from qwen_aio.tasks.loader import load_tasks
from qwen_aio.worker.golden import ask_cases
from qwen_aio.worker.golden_book import GoldenAnswer, GoldenRecord, written

NO_VNNI = {"FBGEMM_ENABLE_INSTRUCTIONS": "avx2"}  # fbgemm's own variable
PROMPTS = Path(__file__).resolve().parent.parent / "prompts"


class Way(NamedTuple):
    """One way to compute; every processor that a worker runs on takes one of them."""

    precision: Precision
    is_exact: bool = False  # torch's int8 products as VNNI sums them, which also says what needs two passes
    environment: Mapping[str, str] = {}
    kernel: str = "torch"
    stands_for: str = ""  # another kernel, which gives the same but for rounding


WAYS = (
    Way("fp32"),
    Way("int8", is_exact=True),
    Way("int8", environment=NO_VNNI),
    Way("int8", kernel="avx2"),
    Way("int8", is_exact=True, kernel="plain", stands_for="avx512"),
)


def record(model: Path) -> list[Path]:
    """The records of all tasks, in `model`/golden; older ones are removed."""
    sha, tasks = model_sha(model), load_tasks(PROMPTS)
    found = dict(_in_own_process(model, way) for way in WAYS)
    target = model / "golden"
    target.mkdir(exist_ok=True)
    for old in target.glob("*.json"):
        old.unlink()
    records: dict[str, list[GoldenRecord]] = {name: [] for name in tasks}
    for kind, by_task in found.items():
        for name, answers in by_task.items():
            records[name].append(GoldenRecord(sha, tasks[name].hash, kind, answers))
    for name, made in records.items():
        (target / f"{name}.json").write_text(written(made), encoding="utf-8")
    return sorted(target.iterdir())


Answers = dict[str, tuple[GoldenAnswer, ...]]  # by task


def _in_own_process(model: Path, way: Way) -> tuple[str, Answers]:
    """What `answers_of` returns; fbgemm reads the environment once."""
    before = dict(os.environ)
    os.environ |= {"QWEN_AIO_KERNEL": way.kernel, **way.environment}
    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            return pool.submit(answers_of, model, way).result()
    finally:
        os.environ.clear()
        os.environ.update(before)


def answers_of(model: Path, way: Way) -> tuple[str, Answers]:
    """The arithmetic of `way`, which this process computes in from now on, and the answers in it."""
    if way.is_exact:
        torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32 = SimpleNamespace(  # type: ignore[attr-defined]  # made on first use
            default=exact_product
        )
    kind = arithmetic(way.precision) if way.kernel == TORCH else f"{way.precision} by {way.stands_for or way.kernel}"
    return kind, asyncio.run(_ask(model, load_tasks(PROMPTS), way.precision))


def exact_product(x: Tensor, scale: float, zero_point: int, packed: torch.ScriptObject) -> Tensor:
    """fbgemm's operator, slowly, where AVX2 alone would saturate: (n, in) -> (n, out)."""
    weight, _ = torch.ops.quantized.linear_unpack(packed)
    levels = (x / scale).round_().clamp_(-zero_point, 255 - zero_point)
    sums = levels.double() @ weight.int_repr().t().double()
    product: Tensor = sums.mul_(scale * weight.q_per_channel_scales()).float()
    return product


async def _ask(model: Path, tasks: Mapping[str, Task], precision: Precision) -> Answers:
    engine = EngineService(load_engine(model, EngineLimits(), threads=1, precision=precision))
    engine.start()
    try:
        return {name: await ask_cases(engine, task) for name, task in tasks.items()}
    finally:
        await engine.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=BUNDLED)
    for path in record(parser.parse_args().model):
        print(path)
