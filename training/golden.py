"""`python -m training.golden`: writes down what the bundled model answers to the golden cases, in each precision.

To be run once after the weights or the tasks have changed; from then on every start must reproduce it.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

from qwen_aio.core import Precision, Task
from qwen_aio.engine.config import EngineLimits
from qwen_aio.engine.load import load_engine
from qwen_aio.engine.service import EngineService
from qwen_aio.models.find import BUNDLED, model_sha
from qwen_aio.tasks.loader import load_tasks
from qwen_aio.worker.golden import ask_cases
from qwen_aio.worker.golden_book import GoldenAnswer, GoldenRecord, written

PRECISIONS: tuple[Precision, ...] = get_args(Precision)
PROMPTS = Path(__file__).resolve().parent.parent / "prompts"


def record(model: Path) -> list[Path]:
    """The records of all tasks, in `model`/golden; older ones are removed."""
    sha, tasks = model_sha(model), load_tasks(PROMPTS)
    target = model / "golden"
    target.mkdir(exist_ok=True)
    for old in target.glob("*.json"):
        old.unlink()
    records: dict[str, list[GoldenRecord]] = {name: [] for name in tasks}
    for precision in PRECISIONS:
        for name, answers in asyncio.run(_ask(model, tasks, precision)).items():
            records[name].append(GoldenRecord(sha, tasks[name].hash, precision, answers))
    for name, made in records.items():
        (target / f"{name}.json").write_text(written(made), encoding="utf-8")
    return sorted(target.iterdir())


async def _ask(model: Path, tasks: Mapping[str, Task], precision: Precision) -> dict[str, tuple[GoldenAnswer, ...]]:
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
