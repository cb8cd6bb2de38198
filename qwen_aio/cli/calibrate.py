"""Fit how sure a decision task is, to 50 to 2,000 of your own labelled rows.

qwen-aio calibrate reviews.csv --task sentiment --text-column text --label-column label
qwen-aio calibrate reviews.csv --label-column stars --label 5=positive --label 1=negative

Writes prompts/TASK/calibration.json for the model that was asked. Exit status 1 if the rows do not show a gain.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping

from qwen_aio.cli.labelled_rows import add_source_arguments, source_of
from qwen_aio.cli.services import MODEL_SETTINGS, service_here
from qwen_aio.config import Settings, prompts_dir
from qwen_aio.core import Request, Task
from qwen_aio.errors import InvalidSettings
from qwen_aio.evaluation.calibrating import calibration_lines, recalibrate, uncalibrated, uncalibrated_name
from qwen_aio.evaluation.judging import Judge
from qwen_aio.startup.flags import add_settings_flags, settings_from
from qwen_aio.startup.messages import say
from qwen_aio.tasks.calibration_file import write_calibration
from qwen_aio.tasks.loader import load_task, load_tasks
from qwen_aio.tasks.parse import UNCALIBRATED


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source_arguments(parser)
    add_settings_flags(parser, *MODEL_SETTINGS)


def main(arguments: argparse.Namespace) -> int:
    """Ask, fit, print, write; the exit status."""
    return asyncio.run(_calibrate(arguments, settings_from(arguments)))


async def _calibrate(arguments: argparse.Namespace, settings: Settings) -> int:
    from qwen_aio.worker.loading import choose_model, sha_of

    def more(tasks: Mapping[str, Task]) -> dict[str, Task]:
        return {uncalibrated_name(name): uncalibrated(task) for name, task in tasks.items() if name == arguments.task}

    source = source_of(arguments)
    folder = prompts_dir(settings)
    tasks, sha = load_tasks(folder), sha_of(settings, choose_model(settings))
    named = tasks.get(arguments.task)
    in_use = named.calibration.get(sha, UNCALIBRATED) if named else UNCALIBRATED
    if in_use.thresholds:
        raise InvalidSettings(f"{arguments.task} has thresholds for probabilities as the model says them; it stays so")
    async with service_here(settings, named=Request("-", mode=arguments.task), more=more) as asked:
        task = (await Judge.of(asked, arguments.task)).task
        judge = await Judge.of(asked, uncalibrated_name(arguments.task))
        found = await recalibrate(source, judge, task, in_use)
    print("\n".join(calibration_lines(found, task)))
    if found.calibration is None:
        say("nothing was written", file=sys.stderr)
        return 1
    try:
        known = load_task(folder / task.name).calibration  # as it stands now: another run may have written meanwhile
        path = write_calibration(folder / task.name, sha, found.calibration, known=known)
    except OSError as exc:
        raise InvalidSettings(f"{folder / task.name} cannot be written: {exc.strerror}") from exc
    say(f"written to {path} for the model {sha}; it holds from the next start on")
    return 0
