"""Find the fastest way to run the service on this very machine, in about two minutes, and write it to qwen_aio.toml.

qwen-aio tune                       workers x threads x precision x tokens of a step; nothing else should run meanwhile
qwen-aio tune --precision fp32 --seconds 300 --out other.toml

Every candidate is started as a cluster would start it, and asked. What is made as large as possible is the geometric
mean of decisions per second (eight callers) and tokens per second (eight answers at once).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from qwen_aio.cluster.plan import can_fork
from qwen_aio.config import Settings, home, prompts_dir
from qwen_aio.core import Task
from qwen_aio.errors import InvalidSettings
from qwen_aio.machine.cores import usable_cores
from qwen_aio.models.find import ModelFolder
from qwen_aio.serving.disconnect import cancel
from qwen_aio.serving.server import caught_signals
from qwen_aio.startup.flags import add_settings_flags, settings_from
from qwen_aio.tasks.loader import load_tasks
from qwen_aio.tuning.candidates import CandidateWorkers
from qwen_aio.tuning.halving import Candidate, Trial, grid
from qwen_aio.tuning.measure import Throughput, measure
from qwen_aio.tuning.search import Results, search, settings_of
from qwen_aio.tuning.toml_edit import Value, check_writable, read_settings_file, write_settings_file
from qwen_aio.worker.loading import choose_model, records_of, told_model
from qwen_aio.worker.memory_need import log_memory
from qwen_aio.worker.precision import choose_precision

SETTINGS = ("model", "precision", "prompts_dir", "max_context", "kv_mb", "golden")
SHORTEST_S, LONGEST_S = 5.0, 3600.0
HEADING = """\
Found by `qwen-aio tune` on this machine; run it again for another machine or model.
workers: how many `qwen-aio cluster` starts. It divides the cores between them; one process alone takes them all.
precision: auto is int8 where the model answers as it does in fp32."""

T = TypeVar("T")


class Interrupted(Exception):
    """A signal came; `number` is its."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `qwen-aio tune` understands."""
    parser.add_argument("--out", type=Path, metavar="FILE", help="what is written [--config, or qwen_aio.toml in home]")
    parser.add_argument("--seconds", type=float, default=120.0, help="how long it may take [120]")
    add_settings_flags(parser, *SETTINGS)


def main(arguments: argparse.Namespace) -> int:
    """Measure, tell, write; the exit status. Raises SetupError."""
    settings = settings_from(arguments)
    if not SHORTEST_S <= arguments.seconds <= LONGEST_S:
        raise InvalidSettings(f"--seconds: {arguments.seconds:g} is not between {SHORTEST_S:g} and {LONGEST_S:g}")
    out: Path = arguments.out or arguments.config or home() / "qwen_aio.toml"
    old = read_settings_file(out)  # a mistake in it is told before two minutes have passed
    _check_workers(out, old)
    check_writable(out)
    tasks = load_tasks(prompts_dir(settings))
    model = choose_model(settings)
    print(told_model(model))
    log_memory(settings, model)
    asked: str | None = getattr(arguments, "precision", os.environ.get("QWEN_AIO_PRECISION"))
    candidates = grid(cores=usable_cores(), precisions=precisions(asked, settings, model))
    _say(f"{len(candidates)} candidates, up to {arguments.seconds:g} s; nothing else should run meanwhile")
    try:
        findings = asyncio.run(_until_signal(_measure_all(arguments, tasks, candidates)))
    except Interrupted as exc:
        return 128 + exc.number
    best = findings.best
    print(*findings.lines(), sep="\n")
    values = settings_of(best, asked_precision=asked, has_threads="threads" in old)
    write_settings_file(out, values, heading=HEADING)
    print(f"{out}: {', '.join(told_change(name, old.get(name), value) for name, value in values.items())}")
    for name, value in {"threads": best.threads, **values}.items():
        variable = f"QWEN_AIO_{name.upper()}"
        if os.environ.get(variable, str(value)) != str(value):
            print(f"but {variable} is {os.environ[variable]}, and wins over that")
    if "OMP_NUM_THREADS" in os.environ and "threads" not in values and "QWEN_AIO_THREADS" not in os.environ:
        print(f"but OMP_NUM_THREADS is {os.environ['OMP_NUM_THREADS']}, which a worker takes for --threads")
    return 0


def precisions(asked: str | None, settings: Settings, model: ModelFolder) -> tuple[str, ...]:
    """Those worth a try, the faster ones first; why one is not is told. Raises InvalidSettings if it is asked for.

    What `auto` would not take is not: workers and batch would be those of int8, and fp32 would run with them.
    """
    # Here and not above: importing torch takes seconds, and --help should not.
    from qwen_aio.engine.model.linear import why_no_int8

    if asked == "fp32":
        return ("fp32",)
    why = why_no_int8()
    if asked == "int8":
        if why:
            raise InvalidSettings(f"--precision int8: {why}", param="precision")
        return ("int8",)
    why = why or _why_not_taken(settings, model, why_no_int8)
    if why:
        _say(f"int8 is not tried: {why}")
        return ("fp32",)
    return ("int8", "fp32")


def told_change(name: str, old: object, new: Value) -> str:
    """`old` is what the file had; None for nothing."""
    return f"{name} = {new}" if old in (None, new) else f"{name} = {old} -> {new}"


def _check_workers(out: Path, old: Mapping[str, object]) -> None:
    """Raises InvalidSettings if the file says more of workers than their number."""
    workers = old.get("workers")
    if workers and not str(workers).isdecimal():
        raise InvalidSettings(
            f"{out} names the workers of a balancer ({workers}), which their number would replace; "
            "choose another file with --out",
            param="workers",
        )


def _why_not_taken(settings: Settings, model: ModelFolder, why_no_int8: Callable[[], str | None]) -> str | None:
    """Why `auto` does not take int8, which is found out now if nobody has yet; None if it does."""
    # Here and not above: it is a program of its own, and imports the main that imports this.
    from qwen_aio.cli.prepare_int8 import settle_precision

    auto = settings.model_copy(update={"precision": "auto"})
    settle_precision(auto, model)  # what follows reads the verdict then, but for a small model
    verdict = choose_precision(auto, model, records_of(auto, model), threads=1, why_no_int8=why_no_int8)
    return verdict.why if verdict.precision == "fp32" else None


async def _until_signal(work: Coroutine[Any, Any, T]) -> T:
    """The outcome of `work`, which is cancelled when a signal comes. Raises Interrupted."""
    with caught_signals() as signals:
        working, coming = asyncio.ensure_future(work), asyncio.ensure_future(signals.get())
        try:
            await asyncio.wait({working, coming}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancel(working)
            await cancel(coming)
        if not coming.cancelled():
            raise Interrupted(coming.result())
        return working.result()


async def _measure_all(
    arguments: argparse.Namespace, tasks: Mapping[str, Task], candidates: Sequence[Candidate]
) -> Results:
    with tempfile.TemporaryDirectory() as folder:
        async with CandidateWorkers(arguments, folder=Path(folder), forks=can_fork()) as rig:

            async def start_and_measure(turn: Trial) -> Throughput:
                async with rig.workers(turn.candidate) as urls:
                    return await measure(urls, tasks, seconds=turn.seconds)

            return await search(candidates, start_and_measure, budget_s=arguments.seconds, say=_say)


def _say(line: str) -> None:
    """How it goes; the outcome alone is for standard output."""
    print(line, file=sys.stderr, flush=True)
