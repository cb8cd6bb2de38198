"""Put every row of a file to a task, and write the file again with the labels.

qwen-aio classify reviews.csv --column text --task sentiment -o labelled.csv
qwen-aio classify - --column text --url http://127.0.0.1:8000 -o labelled.jsonl --summary

Reads CSV (also Excel's), TSV and one JSON object a line. A run that was stopped, however it ended,
goes on where it was when the same command is given again.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from tqdm import tqdm  # type: ignore[import-untyped]  # tqdm ships no types

from qwen_aio.bulk.asking import Asked, Asker, Labelled, Patient
from qwen_aio.bulk.columns import UTF8_MARK, added_columns, added_values
from qwen_aio.bulk.journal import Journal, journal, journal_of
from qwen_aio.bulk.table import RowTable, fingerprint, open_table
from qwen_aio.cli.services import MODEL_SETTINGS, SERVER_SETTINGS, URL_HELP, service_at, service_here
from qwen_aio.core import Request, SamplingWish
from qwen_aio.errors import InvalidSettings, UnknownTask
from qwen_aio.evaluation.share import Share
from qwen_aio.startup.flags import add_settings_flags, settings_from
from qwen_aio.startup.messages import say

FAILED, ANSWERED = "error", "answered"  # outcomes that are no label


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", help="CSV, TSV or one JSON object a line (.jsonl); - reads it from standard input")
    parser.add_argument("--column", default="text", help="the column that holds the text [text]")
    parser.add_argument("--task", default="sentiment", help="a task's name [sentiment]")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="what is written")
    parser.add_argument("--summary", action="store_true", help="print the share of each label, with 95 %% intervals")
    parser.add_argument("--seed", type=int, help="makes the answers of a generating task repeatable")
    parser.add_argument("--url", help=URL_HELP)
    add_settings_flags(parser, *MODEL_SETTINGS, *SERVER_SETTINGS)


def main(arguments: argparse.Namespace) -> int:
    """Ask, write, print; the exit status: 1 if a row failed."""
    settings = settings_from(arguments)
    wish = SamplingWish(seed=arguments.seed)
    request = Request("-", mode=arguments.task, sampling=wish, request_id="classify")
    with _file(arguments.file) as path:
        table = open_table(path)
        if arguments.column not in table.columns:
            raise InvalidSettings(f"there is no column {arguments.column!r}; there are: {', '.join(table.columns)}")
        total = sum(1 for _ in table.rows())
        say(f"{arguments.file}: {table}, {total} rows", file=sys.stderr)

        async def work() -> Mapping[str, int]:
            url = arguments.url
            async with service_at(url, settings) if url else service_here(settings, named=request) as asked:
                return await write_labels(asked, request, table, arguments.column, arguments.output, total)

        try:
            outcomes = asyncio.run(work())
        except BaseException as exc:
            if not isinstance(exc, InvalidSettings) and journal_of(arguments.output).exists():
                say(f"stopped; the same command goes on with {arguments.output}", file=sys.stderr)
            raise
    if arguments.summary:
        _print_summary(outcomes)
    return 1 if outcomes.get(FAILED) else 0


@contextmanager
def _file(name: str) -> Iterator[Path]:
    """The file of that name; standard input is kept in one for the time of the run, since it is read twice."""
    if name != "-":
        yield Path(name)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stdin"
        with path.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        yield path


async def write_labels(
    asked: Asked, request: Request, table: RowTable, column: str, output: Path, total: int
) -> Mapping[str, int]:
    """Write every row that is not written yet; how many came out how."""
    capabilities = await asked.capabilities()
    task = capabilities.tasks.get(request.mode)
    if task is None:
        raise UnknownTask(f"unknown task {request.mode!r}; known: {', '.join(sorted(capabilities.tasks))}")
    about = {
        "file": fingerprint(table.path),
        "column": column,
        "task": f"{task.name} {task.hash}",
        "model": capabilities.model,
    }
    names = added_columns(table.columns, task)
    with journal(output, about) as out:
        done = out.progress.rows
        if not out.progress.num_bytes:
            out.write(("" if table.encoding == "utf-8" else UTF8_MARK) + table.heading(names))
        rows = islice(table.rows(), done, None)
        with tqdm(total=total, initial=done, unit="row", disable=None, mininterval=0.5) as bar:
            async for labelled in Asker(Patient(asked), request, table, column).labelled(rows):
                out.write(
                    table.line(labelled.row, dict(zip(names, added_values(labelled, task), strict=True))),
                    _outcome(labelled),
                )
                _show(bar, out)
    return out.progress.outcomes


def _outcome(labelled: Labelled) -> str:
    if labelled.result is None:
        return FAILED
    return labelled.result.decision.label if labelled.result.decision else ANSWERED


def _show(bar: tqdm, out: Journal) -> None:
    """One row more, and the share of each outcome so far."""
    progress = out.progress
    shares = {name: f"{count / progress.rows:.0%}" for name, count in sorted(progress.outcomes.items())}
    bar.set_postfix(shares, refresh=False)
    bar.update()


def _print_summary(outcomes: Mapping[str, int]) -> None:
    total = sum(outcomes.values())
    for name, count in sorted(outcomes.items(), key=lambda item: -item[1]):
        print(f"{name:12s} {Share(count, total)}")
