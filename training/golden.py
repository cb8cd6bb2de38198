"""`python -m training.golden`: writes down what the bundled model answers to the golden cases, in each arithmetic.

To be run once after the weights or the tasks have changed; from then on every start must reproduce it. It takes a
processor with VNNI, which can compute as one without it does, but not the other way round.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from qwen_aio.core import Precision, Task
from qwen_aio.engine.config import EngineLimits
from qwen_aio.engine.load import load_engine
from qwen_aio.engine.model.linear import arithmetic
from qwen_aio.engine.service import EngineService
from qwen_aio.models.find import BUNDLED, model_sha
from qwen_aio.tasks.loader import load_tasks
from qwen_aio.worker.golden import ask_cases
from qwen_aio.worker.golden_book import GoldenAnswer, GoldenRecord, written

SWITCH = "FBGEMM_ENABLE_INSTRUCTIONS"  # fbgemm's own: with avx2 it leaves VNNI alone
WAYS: tuple[tuple[Precision, dict[str, str]], ...] = (("fp32", {}), ("int8", {}), ("int8", {SWITCH: "avx2"}))
PROMPTS = Path(__file__).resolve().parent.parent / "prompts"


class NoVnni(Exception):
    """This processor has one of the two ways to compute in int8."""


def record(model: Path) -> list[Path]:
    """The records of all tasks, in `model`/golden; older ones are removed. Raises NoVnni, and changes nothing then."""
    sha, tasks = model_sha(model), load_tasks(PROMPTS)
    found = dict(_in_own_process(model, precision, environment) for precision, environment in WAYS)
    if len(found) < len(WAYS):
        raise NoVnni(f"this processor computes in {', '.join(found)} only; record on one with VNNI")
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


def _in_own_process(model: Path, precision: Precision, environment: Mapping[str, str]) -> tuple[str, Answers]:
    """What `answers_of` returns where `environment` holds: fbgemm reads it once."""
    before = dict(os.environ)
    os.environ |= environment
    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            return pool.submit(answers_of, model, precision).result()
    finally:
        os.environ.clear()
        os.environ.update(before)


def answers_of(model: Path, precision: Precision) -> tuple[str, Answers]:
    """The arithmetic of this process for `precision`, and the answers in it."""
    return arithmetic(precision), asyncio.run(_ask(model, load_tasks(PROMPTS), precision))


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
    try:
        for path in record(parser.parse_args().model):
            print(path)
    except NoVnni as exc:
        sys.exit(f"python -m training.golden: {exc}")
