"""`python -m training.golden`: writes down what the bundled model answers to the golden cases, in each precision.

To be run once after the weights or the tasks have changed; from then on every start must reproduce it.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path
from typing import get_args

from qwen_aio.core import Precision
from qwen_aio.engine.config import EngineLimits
from qwen_aio.engine.load import load_engine
from qwen_aio.engine.service import EngineService
from qwen_aio.models.find import BUNDLED, model_sha
from qwen_aio.tasks.loader import load_tasks
from qwen_aio.worker.golden import GoldenBook, check_golden

PRECISIONS: tuple[Precision, ...] = get_args(Precision)
PROMPTS = Path(__file__).resolve().parent.parent / "prompts"


def record(model: Path) -> list[Path]:
    """The records of all tasks, in `model`/golden; older ones are removed."""
    sha = model_sha(model)
    target = model / "golden"
    target.mkdir(exist_ok=True)
    for old in target.glob("*.json"):
        old.unlink()
    with tempfile.TemporaryDirectory() as folder:
        for precision in PRECISIONS:
            book = GoldenBook(sha, precision, own=Path(folder), shipped=None)
            asyncio.run(_ask(model, book, precision))
        # Beside its own model a record needs no hash in its name: other weights must not look like no record.
        for path in Path(folder).iterdir():
            (target / path.name.removeprefix(f"{sha}-")).write_bytes(path.read_bytes())
    return sorted(target.iterdir())


async def _ask(model: Path, book: GoldenBook, precision: Precision) -> None:
    engine = EngineService(load_engine(model, EngineLimits(), threads=1, precision=precision))
    engine.start()
    try:
        await check_golden(engine, load_tasks(PROMPTS), book, policy=None)
    finally:
        await engine.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=BUNDLED)
    for written in record(parser.parse_args().model):
        print(written)
