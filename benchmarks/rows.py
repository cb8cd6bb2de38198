"""Dev rows of the training data as a CSV, for `qwen-aio eval`, `calibrate` and `tasks draft`.

    python -m benchmarks.rows --data DIR --source smp2020_usual --source semeval2017_4a --rows 600 -o rows.csv

The same sources and number always give the same rows. Columns: text, label.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from benchmarks.accuracy import write_rows
from training.corpus import sentiment_rows

SEED = 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--source", action="append", required=True, help="a set's name; may be repeated")
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    rows = [row for row in sentiment_rows(arguments.data, "dev") if row.source in arguments.source]
    chosen = random.Random(SEED).sample(rows, min(arguments.rows, len(rows)))
    write_rows(chosen, arguments.output)


if __name__ == "__main__":
    main()
