"""Records of a model's answers to the golden cases.

One file for a model and a task, with a record for each version of the task and each precision, the
latest last. int8 is a precision of its own for every kernel: its numbers differ. Records of
the bundled model ship with its weights; own ones are in state/golden and may be deleted at any time.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from qwen_aio.core import GoldenCase, Task
from qwen_aio.errors import GoldenMismatch
from qwen_aio.files import read_text, replacing

MAX_KEPT = 8  # records of one task: each edit makes one
UNREADABLE = (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError)
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class GoldenAnswer:
    """The model's answer to one case: all labels, or the one answer that was scored."""

    text: str
    label: str
    probabilities: dict[str, float]


@dataclass(frozen=True)
class GoldenRecord:
    """The answers of one model to the cases of one version of a task, in one precision."""

    model_sha: str
    task_hash: str
    precision: str
    answers: tuple[GoldenAnswer, ...]
    is_shipped: bool = field(default=False, compare=False)

    def is_of(self, task: Task, precision: str) -> bool:
        """Whether it is of the task as it is now, in this precision."""
        return (self.task_hash, self.precision) == (task.hash, precision)

    def find(self, case: GoldenCase) -> GoldenAnswer | None:
        of_text = (answer for answer in self.answers if answer.text == case.text)
        return next((answer for answer in of_text if case.answer in (None, answer.label)), None)

    def covers(self, task: Task) -> bool:
        """Whether it has exactly the cases that `task` has now."""
        return len(self.answers) == len(task.golden) and all(map(self.find, task.golden))


@dataclass(frozen=True)
class GoldenBook:
    """The records of one model in one precision; `shipped` is None if it has none."""

    model_sha: str
    precision: str
    own: Path
    shipped: Path | None

    def read(self, task: Task) -> GoldenRecord | None:
        """The record to compare `task` with: of this very version, else the last one of its name.

        Raises GoldenMismatch if the shipped records cannot be read.
        """
        own, shipped = self._read_own(task.name), self._read_shipped(task.name)
        exact = [record for record in (*shipped, *own) if record.is_of(task, self.precision)]
        last = exact or own or self._in_this_precision(shipped) or shipped
        return next((record for record in exact if record.covers(task)), last[-1] if last else None)

    def keep(self, task: Task, answers: Sequence[GoldenAnswer]) -> None:
        """Make `answers` the last record of `task`. Logs a folder that cannot be written to."""
        record = GoldenRecord(self.model_sha, task.hash, self.precision, tuple(answers))
        own = self._read_own(task.name)
        last = own or self._in_this_precision(self._read_shipped(task.name))
        if last and last[-1] == record:
            return
        kept = [one for one in own if not one.is_of(task, self.precision)]
        try:
            with replacing(self._own_path(task.name)) as partial:
                partial.write_text(written([*kept, record][-MAX_KEPT:]), encoding="utf-8")
        except OSError as exc:
            logger.warning("golden record of task %s not kept: %s", task.name, exc)

    def _in_this_precision(self, records: Sequence[GoldenRecord]) -> list[GoldenRecord]:
        return [record for record in records if record.precision == self.precision]

    def _read_own(self, name: str) -> list[GoldenRecord]:
        path = self._own_path(name)
        try:
            return _read(path, is_shipped=False)
        except UNREADABLE as exc:
            logger.warning("golden record %s is damaged and will be written anew: %s", path, exc)
            return []

    def _read_shipped(self, name: str) -> list[GoldenRecord]:
        if self.shipped is None:
            return []
        path = self.shipped / f"{name}.json"
        try:
            return _read(path, is_shipped=True)
        except UNREADABLE as exc:
            raise GoldenMismatch(f"the shipped golden record {path} is damaged: {exc}; install again") from exc

    def _own_path(self, name: str) -> Path:
        return self.own / f"{self.model_sha}-{name}.json"


def written(records: Sequence[GoldenRecord]) -> str:
    """`records` as the text of a file, one answer a line."""
    entries = []
    for record in records:
        head = json.dumps({"model_sha": record.model_sha, "task_hash": record.task_hash, "precision": record.precision})
        lines = ",\n".join(json.dumps(asdict(answer), ensure_ascii=False) for answer in record.answers)
        entries.append(f'{head[:-1]}, "answers": [\n{lines}\n]}}')
    return "[" + ",\n".join(entries) + "]\n"


def _read(path: Path, *, is_shipped: bool) -> list[GoldenRecord]:
    """The records in a file; none without one. Raises one of UNREADABLE if it is damaged."""
    if not path.is_file():
        return []
    records = []
    for entry in json.loads(read_text(path)):
        answers = tuple(GoldenAnswer(**answer) for answer in entry["answers"])
        if not all(math.isfinite(p) for answer in answers for p in dict(answer.probabilities).values()):
            raise ValueError("a probability is not a number")
        if any(answer.label not in answer.probabilities for answer in answers):
            raise ValueError("an answer has no probability of its own")
        records.append(GoldenRecord(**{**entry, "answers": answers}, is_shipped=is_shipped))
    return records
