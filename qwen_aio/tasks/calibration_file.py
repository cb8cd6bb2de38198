"""calibration.json beside a task: for a model's hash, how its probabilities are read.

    {"b8d296a3114a1cd2": {"temperature": {"zh": 0.9, "en": 1.1}, "shifts": {"neutral": -0.4}, "neutral_below": 0.45}}

Entries of other models are left alone when one is written.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from qwen_aio.errors import InvalidTask
from qwen_aio.files import replacing
from qwen_aio.language import Language
from qwen_aio.safeguards import Calibration
from qwen_aio.tasks.task_file import Name, Probability, Table

CALIBRATION_FILE = "calibration.json"
MAX_SHIFT = 50.0  # a factor of e^50: more makes a label certain, or impossible


class _Entry(Table):
    temperature: dict[Language, Annotated[float, Field(gt=0, le=100)]] = Field(default_factory=dict)
    shifts: dict[Name, Annotated[float, Field(ge=-MAX_SHIFT, le=MAX_SHIFT)]] = Field(default_factory=dict)
    neutral_below: Probability | None = None
    thresholds: dict[Language, dict[Name, Probability]] = Field(default_factory=dict)


_ENTRIES = TypeAdapter(dict[str, _Entry])


def parse_calibrations(path: Path, source: str, labels: Collection[str]) -> dict[str, Calibration]:
    """Model hash -> calibration, from the content of `path`; "" is a file without entries.

    Raises InvalidTask, which names the file and the entry.
    """
    try:
        entries = _ENTRIES.validate_json(source or "{}")
    except ValidationError as exc:
        found = "; ".join(f"{'.'.join(map(str, error['loc']))}: {error['msg'].lower()}" for error in exc.errors())
        raise InvalidTask(f"{path}: {found}") from exc
    for sha, entry in entries.items():
        named = {*entry.shifts, *(label for thresholds in entry.thresholds.values() for label in thresholds)}
        if unknown := sorted(named - set(labels)):
            raise InvalidTask(f"{path}: {sha} names {unknown[0]!r}; the labels are {', '.join(labels)}")
    return {sha: Calibration(**entry.model_dump()) for sha, entry in entries.items()}


def write_calibration(folder: Path, sha: str, calibration: Calibration, *, known: Mapping[str, Calibration]) -> Path:
    """Put `calibration` for the model `sha` beside the `known` ones of the task in `folder`; the file.

    Raises OSError.
    """
    path = folder / CALIBRATION_FILE
    entries = {key: _written(each) for key, each in {**known, sha: calibration}.items()}
    with replacing(path) as partial:
        partial.write_text(json.dumps(entries, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return path


def _written(calibration: Calibration) -> dict[str, object]:
    """What says anything."""
    return {name: value for name, value in asdict(calibration).items() if value not in ({}, None)}
