"""The flags that name a file of labelled rows, and the file opened."""

from __future__ import annotations

import argparse
from pathlib import Path

from qwen_aio.bulk.table import open_table
from qwen_aio.errors import InvalidSettings
from qwen_aio.evaluation.judging import Source


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="CSV, TSV or one JSON object a line (.jsonl)")
    parser.add_argument("--task", default="sentiment", help="a decision task's name [sentiment]")
    parser.add_argument("--text-column", default="text", metavar="COLUMN", help="the column that holds the text [text]")
    parser.add_argument("--label-column", default="label", metavar="COLUMN", help="... and the true label [label]")
    parser.add_argument(
        "--label",
        action="append",
        default=[],
        metavar="VALUE=LABEL",
        help="what a value of that column means, where it is neither a label's name nor its text; may be repeated",
    )


def source_of(arguments: argparse.Namespace) -> Source:
    """The file's labelled rows. Raises InvalidSettings."""
    table = open_table(arguments.file)
    for column in (arguments.text_column, arguments.label_column):
        if column not in table.columns:
            raise InvalidSettings(f"there is no column {column!r}; there are: {', '.join(table.columns)}")
    return Source(table, arguments.text_column, arguments.label_column, arguments.label)
