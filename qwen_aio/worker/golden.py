"""Golden cases: does this model still answer what it answered?

They guard against a broken model file, a wrong precision or a damaged template, not against a weak model: the first
start of a model with a task writes down what it answers, every later start must reproduce that. Records are keyed by
model hash, task, task hash and precision; the bundled model's ship beside its weights, one's own lie in state/golden.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from qwen_aio.core import GoldenCase, Task
from qwen_aio.errors import GoldenMismatch
from qwen_aio.replacing import replacing
from qwen_aio.tasks.parse import decide
from qwen_aio.tasks.template import PromptTemplate
from qwen_aio.text_file import read_text
from qwen_aio.worker.calls import Engine

TOLERANCE = 0.02  # of a probability, between machines and thread counts
TOLD_CASES = 3  # of those that differ; the sentence also travels in status.json
Policy = Literal["strict", "warn", "off"]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GoldenAnswer:
    """What the model made of one case: all labels of a decision, else the one answer that was scored."""

    text: str
    label: str
    probabilities: dict[str, float]


@dataclass(frozen=True)
class GoldenRecord:
    """The answers of the model with this hash to the cases of one task."""

    model_sha: str
    answers: tuple[GoldenAnswer, ...]
    is_shipped: bool

    def covers(self, task: Task) -> bool:
        """Whether it was made from the cases that `task` has now."""
        if len(self.answers) != len(task.golden):
            return False
        pairs = zip(self.answers, task.golden, strict=True)
        return all(old.text == case.text and case.answer in (None, old.label) for old, case in pairs)


@dataclass(frozen=True)
class GoldenBook:
    """Where the records of one model in one precision lie; `shipped` is None for a model that came without any."""

    model_sha: str
    precision: str
    own: Path
    shipped: Path | None

    def read(self, task: Task) -> GoldenRecord | None:
        """The record for `task`, the shipped one first. Raises GoldenMismatch if the shipped one cannot be read."""
        name = f"{task.name}-{task.hash}-{self.precision}.json"
        if self.shipped is not None and (path := self.shipped / name).is_file():
            try:
                record = _read(path, is_shipped=True)
            except (OSError, ValueError, TypeError, KeyError) as exc:
                raise GoldenMismatch(f"the shipped golden record {path} is damaged: {exc}; install again") from exc
            if record.covers(task):
                return record
        return self._read_own(task)

    def write(self, task: Task, answers: Sequence[GoldenAnswer]) -> None:
        """Keep `answers` as what this model answers from now on. A folder that cannot be written is only told."""
        lines = ",\n".join(json.dumps(asdict(answer), ensure_ascii=False) for answer in answers)
        try:
            with replacing(self._own_path(task)) as partial:
                partial.write_text(f'{{"model_sha": "{self.model_sha}", "answers": [\n{lines}\n]}}\n', encoding="utf-8")
        except OSError as exc:
            log.warning("golden record of task %s not kept: %s", task.name, exc)

    def _read_own(self, task: Task) -> GoldenRecord | None:
        path = self._own_path(task)
        if not path.is_file():
            return None
        try:
            record = _read(path, is_shipped=False)
        except (OSError, ValueError, TypeError, KeyError) as exc:
            log.warning("golden record %s is damaged and will be written anew: %s", path, exc)
            return None
        return record if record.covers(task) else None

    def _own_path(self, task: Task) -> Path:
        return self.own / f"{self.model_sha}-{task.name}-{task.hash}-{self.precision}.json"


async def check_golden(
    engine: Engine, tasks: Mapping[str, Task], book: GoldenBook, *, policy: Policy | None
) -> dict[str, str]:
    """Task name -> "ok ...", "recorded ..." or what differs. Raises GoldenMismatch where the policy is strict.

    Without a stated policy a shipped record is strict and one's own only warns. A model that gives no numbers at all
    is refused under either.
    """
    if policy == "off":
        return dict.fromkeys(tasks, "off")
    outcome: dict[str, str] = {}
    for task in tasks.values():
        record = book.read(task)
        template = PromptTemplate(task)
        answers = [await _ask(engine, template, task, case) for case in task.golden]
        if record is None:
            book.write(task, answers)
            outcome[task.name] = f"recorded {len(answers)} cases"
        else:
            outcome[task.name] = _judge(task, record, answers, model_sha=book.model_sha, policy=policy)
    return outcome


def _read(path: Path, *, is_shipped: bool) -> GoldenRecord:
    """Raises OSError, ValueError, TypeError, KeyError for a file that is not a record."""
    content = json.loads(read_text(path))
    answers = tuple(GoldenAnswer(**entry) for entry in content["answers"])
    if not all(math.isfinite(p) for answer in answers for p in dict(answer.probabilities).values()):
        raise ValueError("a probability is not a number")
    return GoldenRecord(content["model_sha"], answers, is_shipped)


def _judge(
    task: Task, record: GoldenRecord, answers: Sequence[GoldenAnswer], *, model_sha: str, policy: Policy | None
) -> str:
    differing = [_told(old, new) for old, new in zip(record.answers, answers, strict=True) if not _agree(old, new)]
    if not differing and record.model_sha == model_sha:
        return f"ok {len(answers)} cases"
    told = f"{len(differing)} of {len(answers)} golden cases of task {task.name} changed"
    if differing:
        told += f": {'; '.join(differing[:TOLD_CASES])}{' ...' if len(differing) > TOLD_CASES else ''}"
    if record.model_sha != model_sha:
        told += f"; the model files (hash {model_sha}) are not those that shipped ({record.model_sha})"
    if (policy or ("strict" if record.is_shipped else "warn")) == "strict":
        raise GoldenMismatch(
            f"{told}. The model files, the precision or the template are not what they were; "
            "restore them, or start with --golden warn"
        )
    log.warning("%s", told)
    return told


def _agree(old: GoldenAnswer, new: GoldenAnswer) -> bool:
    return (
        old.label == new.label
        and old.probabilities.keys() == new.probabilities.keys()
        and all(abs(old.probabilities[name] - new.probabilities[name]) <= TOLERANCE for name in old.probabilities)
    )


def _told(old: GoldenAnswer, new: GoldenAnswer) -> str:
    was, now = old.probabilities.get(old.label, 0.0), new.probabilities.get(new.label, 0.0)
    return f"{old.text[:40]!r}: {old.label} {was:.3f} became {new.label} {now:.3f}"


async def _ask(engine: Engine, template: PromptTemplate, task: Task, case: GoldenCase) -> GoldenAnswer:
    continuations = [label.text for label in task.labels] or [case.answer or ""]
    scores = await engine.score(f"golden-{task.name}", template.prompt(case.text), continuations)
    if any(math.isnan(score.logprob) for score in scores.labels):
        raise GoldenMismatch(f"the model gives no numbers (NaN) for {case.text[:40]!r}: its weights are damaged")
    if task.kind == "decision":
        decision = decide(task, scores)
        return GoldenAnswer(case.text, decision.label, {name: round(p, 4) for name, p in decision.scores.items()})
    # Per token, so that long answers are not all equally improbable.
    (score,) = scores.labels
    probability = math.exp(score.logprob / max(1, score.num_tokens))
    return GoldenAnswer(case.text, score.text, {score.text: round(probability, 4)})
