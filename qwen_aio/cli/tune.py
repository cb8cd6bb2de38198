"""Find the fastest settings for this machine, in about two minutes; write them to qwen_aio.toml.

qwen-aio tune                       workers x threads x precision x tokens of a step
qwen-aio tune --precision fp32 --seconds 300 --out other.toml

Every candidate is started as a cluster would start it, and asked. What is made as large as possible
is the geometric mean of decisions per second (eight callers) and tokens per second (eight answers
at once).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from qwen_aio.cli.prepare_weights import prepare_weights
from qwen_aio.cluster.plan import can_fork
from qwen_aio.config import prompts_dir
from qwen_aio.core import Task
from qwen_aio.errors import InvalidSettings
from qwen_aio.machine.cores import usable_cores
from qwen_aio.machine.folders import home
from qwen_aio.models.find import ModelFolder
from qwen_aio.serving.interruption import result_unless
from qwen_aio.serving.transport.server import caught_signals
from qwen_aio.startup.egress import egress_guard
from qwen_aio.startup.flags import add_settings_flags, child_arguments, settings_from
from qwen_aio.startup.messages import say
from qwen_aio.tasks.loader import load_tasks
from qwen_aio.tuning.candidates import CandidateWorkers
from qwen_aio.tuning.halving import Candidate, Trial, grid
from qwen_aio.tuning.measure import Throughput, measure
from qwen_aio.tuning.search import Results, fastest_settings, search
from qwen_aio.tuning.toml_edit import Value, check_writable, read_settings_file, write_settings_file
from qwen_aio.worker.loading import choose_model, describe_model, engine_of, records_of
from qwen_aio.worker.memory_need import log_memory, sized
from qwen_aio.worker.precision import choose_precision, is_prepared, why_no_int8

SETTINGS = ("model", "engine", "precision", "prompts_dir", "max_context", "kv_mb", "golden", "offline")
SHORTEST_S, LONGEST_S = 5.0, 3600.0
HEADING = """\
Found by `qwen-aio tune` on this machine; run it again for another machine or model.
workers: how many `qwen-aio cluster` starts. It divides the cores between them; one process alone takes them all.
precision: auto is int8 where the model answers as it does in fp32."""


@dataclass(eq=False)
class Interrupted(Exception):
    """The signal `number` came."""

    number: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, metavar="FILE", help="what is written [--config, or qwen_aio.toml in home]")
    parser.add_argument("--seconds", type=float, default=120.0, help="how long it may take [120]")
    add_settings_flags(parser, *SETTINGS)


def main(arguments: Namespace) -> int:
    """Measure, print, write; the exit status. Raises SetupError."""
    settings = settings_from(arguments)
    if not SHORTEST_S <= arguments.seconds <= LONGEST_S:
        raise InvalidSettings(f"--seconds: {arguments.seconds:g} is not between {SHORTEST_S:g} and {LONGEST_S:g}")
    egress_guard(settings)
    out: Path = arguments.out or arguments.config or home() / "qwen_aio.toml"
    old = _checked_file(out)
    tasks = load_tasks(prompts_dir(settings))
    model = choose_model(settings)
    say(describe_model(model))
    log_memory(sized(settings, model), model)
    asked: str | None = getattr(arguments, "precision", os.environ.get("QWEN_AIO_PRECISION"))
    if engine_of(settings, model).kind == "transformers":
        raise InvalidSettings("tune fits the engine for Qwen to the machine; it has nothing to fit of transformers")
    candidates = grid(cores=usable_cores(), precisions=precisions(asked, arguments, model))
    _progress(f"{len(candidates)} candidates, up to {arguments.seconds:g} s; nothing else should run meanwhile")
    try:
        results = asyncio.run(_measure_all(arguments, tasks, candidates))
    except Interrupted as exc:
        return 128 + exc.number
    values = fastest_settings(results.best, asked_precision=asked, has_threads="threads" in old)
    print(*results.lines(), sep="\n")
    write_settings_file(out, values, heading=HEADING)
    say(f"{out}: {', '.join(describe_change(name, old.get(name), value) for name, value in values.items())}")
    for line in _overruling({"threads": results.best.threads, **values}, writes_threads="threads" in values):
        say(line)
    return 0


def precisions(asked: str | None, arguments: Namespace, model: ModelFolder) -> tuple[str, ...]:
    """Those worth a try, the faster ones first; logs why int8 is not.

    Raises InvalidSettings if it is asked for. A precision that `auto` would refuse is left out:
    workers and batch would fit int8, and fp32 would run with them.
    """
    auto = child_arguments(arguments, "worker", precision="auto")
    settings = settings_from(auto)
    records = records_of(settings, model)
    if asked == "int8" and (why := why_no_int8(records.kernel)):
        raise InvalidSettings(f"--precision int8: {why}", param="precision")
    if asked in ("fp32", "int8", "int4"):
        return (asked,)
    if not is_prepared(settings, records):
        prepare_weights(auto, Event())
    record = choose_precision(settings, model, records, threads=1)
    if record.precision == "fp32":
        _progress(f"int8 is not tried: {record.why}")
        return ("fp32",)
    return ("int8", "fp32")


def describe_change(name: str, old: object, new: Value) -> str:
    """`old` is what the file had; None for nothing."""
    return f"{name} = {new}" if old in (None, new) else f"{name} = {old} -> {new}"


def _checked_file(out: Path) -> Mapping[str, object]:
    """What `out` holds now.

    Any mistake in it is raised before two minutes have passed. Raises InvalidSettings.
    """
    old = read_settings_file(out)
    workers = old.get("workers")
    if workers and not str(workers).isdecimal():
        raise InvalidSettings(
            f"{out} names the workers of a balancer ({workers}), which their number would replace; "
            "choose another file with --out",
            param="workers",
        )
    check_writable(out)
    return old


async def _measure_all(arguments: Namespace, tasks: Mapping[str, Task], candidates: Sequence[Candidate]) -> Results:
    """Raises Interrupted."""
    with tempfile.TemporaryDirectory() as folder, caught_signals() as signals:
        async with aclosing(CandidateWorkers(arguments, folder=Path(folder), forks=can_fork())) as started:

            async def start_and_measure(trial: Trial) -> Throughput:
                async with started.workers(trial.candidate) as urls:
                    return await measure(urls, tasks, seconds=trial.seconds)

            searching = search(candidates, start_and_measure, budget_s=arguments.seconds, report=_progress)
            return await result_unless(signals.get(), searching, error=Interrupted)


def _overruling(values: Mapping[str, Value], *, writes_threads: bool) -> Iterator[str]:
    """A line for every variable that wins over what was found."""
    for name, value in values.items():
        variable = f"QWEN_AIO_{name.upper()}"
        if os.environ.get(variable, str(value)) != str(value):
            yield f"but {variable} is {os.environ[variable]}, and wins over that"
    if "OMP_NUM_THREADS" in os.environ and not writes_threads and "QWEN_AIO_THREADS" not in os.environ:
        yield f"but OMP_NUM_THREADS is {os.environ['OMP_NUM_THREADS']}, which a worker takes for --threads"


def _progress(line: str) -> None:
    """Results alone go to standard output."""
    say(line, file=sys.stderr)
