"""Measure a decision task on rows whose labels are known.

qwen-aio eval reviews.csv --task sentiment --text-column text --label-column label --html report.html
qwen-aio eval reviews.csv --label-column stars --label 5=positive --label 1=negative
qwen-aio eval reviews.csv --target 0.95                    the probability from which 95 % are right
qwen-aio eval reviews.csv --against-precision fp32         two precisions, models or tasks, with McNemar's test
qwen-aio eval reviews.csv --fail-under accuracy=0.9        exit status 1 below it
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from qwen_aio.bulk.asking import Asked
from qwen_aio.cli.labelled_rows import add_source_arguments, source_of
from qwen_aio.cli.services import MODEL_SETTINGS, SERVER_SETTINGS, URL_HELP, service_at, service_here
from qwen_aio.config import Settings
from qwen_aio.core import Request, Task
from qwen_aio.errors import InvalidSettings
from qwen_aio.evaluation.evaluation import GATES, Evaluation, SecondSubject, evaluation_to_json, lines
from qwen_aio.evaluation.judged import Judged
from qwen_aio.evaluation.judging import Judge, Source, flips_of, reordered, reordered_name
from qwen_aio.evaluation.metrics import compare_judged, metrics_of
from qwen_aio.evaluation.threshold import find_threshold
from qwen_aio.startup.flags import add_settings_flags, settings_from
from qwen_aio.startup.language import operators_language
from qwen_aio.startup.messages import say

SWITCHED = ("model", "precision", "prompts_dir")  # settings that a second subject may have of its own


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source_arguments(parser)
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with plots, to be opened offline")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures as JSON")
    parser.add_argument("--no-flips", action="store_true", help="do not ask again in other typings")
    parser.add_argument("--target", type=float, help="find the probability from which this share is right")
    parser.add_argument(
        "--fail-under",
        action="append",
        default=[],
        metavar="FIGURE=VALUE",
        help=f"exit status 1 if it is lower; {' or '.join(GATES)}; may be repeated",
    )
    for name in SWITCHED:
        flag = name.replace("_", "-")
        parser.add_argument(f"--against-{flag}", metavar=name.upper(), help=f"compare with another {flag}")
    parser.add_argument("--against-task", metavar="TASK", help="compare with another task with the same labels")
    parser.add_argument("--url", help=URL_HELP)
    add_settings_flags(parser, *MODEL_SETTINGS, *SERVER_SETTINGS)


def main(arguments: argparse.Namespace) -> int:
    """Ask, measure, print, write; the exit status."""
    settings = settings_from(arguments)
    gates = [_gate(written) for written in arguments.fail_under]
    if arguments.target is not None and not 0 < arguments.target <= 1:
        raise InvalidSettings(f"--target: {arguments.target:g} is not between 0 and 1")
    switched = {name: value for name in SWITCHED if (value := getattr(arguments, f"against_{name}"))}
    against = settings_from(argparse.Namespace(**vars(arguments) | switched)) if switched else None
    found = asyncio.run(_evaluate(arguments, settings, against))
    print("\n".join(lines(found)))
    if arguments.html:
        from qwen_aio.evaluation.report import html

        _write(arguments.html, html(found, language=operators_language()))
    if arguments.json:
        _write(arguments.json, evaluation_to_json(found))
    missed = [(name, least) for name, least in gates if found.value(name) < least]
    for name, least in missed:
        say(f"{name} {found.value(name):.4f} is under {least:g}", file=sys.stderr)
    return 1 if missed else 0


def _gate(written: str) -> tuple[str, float]:
    name, _, value = written.partition("=")
    try:
        if name in GATES:
            return name, float(value)
    except ValueError:
        pass
    raise InvalidSettings(f"--fail-under {written!r}: write {' or '.join(f'{gate}=0.9' for gate in GATES)}")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as exc:
        raise InvalidSettings(f"{path} cannot be written: {exc.strerror}") from exc


async def _evaluate(arguments: argparse.Namespace, settings: Settings, against: Settings | None) -> Evaluation:
    """`against`: what another subject is loaded with."""
    source = source_of(arguments)
    async with _service(arguments.url, settings, arguments.task) as asked:
        judge = await Judge.of(asked, arguments.task)
        began = time.monotonic()
        rows, left_out = await source.judged(judge, title="judging")
        seconds = time.monotonic() - began
        other_order = None if arguments.url else reordered_name(arguments.task)
        flips = {} if arguments.no_flips else await flips_of(judge, rows, reordered=other_order)
        other = await _against_task(source, asked, arguments.against_task, rows) if arguments.against_task else None
    if against:
        async with _service(None, against, arguments.task) as asked:
            other = await _against_task(source, asked, arguments.task, rows)
    return Evaluation(
        file=arguments.file.name,
        subject=judge.subject(rows),
        rows=tuple(rows),
        metrics=metrics_of(rows, judge.labels),
        left_out=left_out,
        rows_per_s=len(rows) / seconds,
        flips=flips,
        threshold=find_threshold(rows, arguments.target) if arguments.target is not None else None,
        other=other,
    )


@asynccontextmanager
async def _service(url: str | None, settings: Settings, task: str) -> AsyncIterator[Asked]:
    """A local one knows the task with its labels in another order, too."""

    def more(tasks: Mapping[str, Task]) -> dict[str, Task]:
        return {reordered_name(task): reordered(tasks[task])} if task in tasks else {}

    named = Request("-", mode=task)
    async with service_at(url, settings) if url else service_here(settings, named=named, more=more) as asked:
        yield asked


async def _against_task(source: Source, asked: Asked, name: str, rows: Sequence[Judged]) -> SecondSubject:
    judge = await Judge.of(asked, name)
    others, _ = await source.judged(judge, title="the other")
    return SecondSubject(judge.subject(others), metrics_of(others, judge.labels), compare_judged(rows, others))
