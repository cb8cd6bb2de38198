"""The flags that name a file of labelled rows, and the file opened."""

from __future__ import annotations

import argparse
from pathlib import Path

from qwen_aio.bulk.table import RowTable, open_table
from qwen_aio.errors import InvalidSettings
from qwen_aio.evaluation.judging import Source

FILE_HELP = "CSV, TSV or one JSON object a line (.jsonl)"


def add_column_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--text-column", default="text", metavar="COLUMN", help="the column that holds the text [text]")
    parser.add_argument("--label-column", default="label", metavar="COLUMN", help="... and the true label [label]")


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help=FILE_HELP)
    parser.add_argument("--task", default="sentiment", help="a decision task's name [sentiment]")
    add_column_arguments(parser)
    parser.add_argument(
        "--label",
        action="append",
        default=[],
        metavar="VALUE=LABEL",
        help="what a value of that column means, where it is neither a label's name nor its text; may be repeated",
    )


def source_of(arguments: argparse.Namespace) -> Source:
    """The file's labelled rows. Raises InvalidSettings."""
    table = table_with(arguments.file, arguments.text_column, arguments.label_column)
    return Source(table, arguments.text_column, arguments.label_column, arguments.label)


def table_with(path: Path, *columns: str) -> RowTable:
    """The file, which has these columns. Raises InvalidSettings."""
    table = open_table(path)
    for column in columns:
        if column not in table.columns:
            raise InvalidSettings(f"there is no column {column!r}; there are: {', '.join(table.columns)}")
    return table
