"""Golden cases: does this model still answer what it answered?

They guard against a broken model file, a wrong precision or a damaged template, not against a weak model: the first
start of a model with a task writes down what it answers, every later start must reproduce that. Records are keyed by
model hash, task, task hash and precision; the bundled model's ship beside its weights, one's own lie in state/golden.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from qwen_aio.core import GoldenCase, Task
from qwen_aio.errors import GoldenMismatch
from qwen_aio.tasks.parse import decide
from qwen_aio.tasks.template import PromptTemplate
from qwen_aio.worker.service import Engine

TOLERANCE = 0.02  # of a probability, between machines and thread counts
Policy = Literal["strict", "warn", "off"]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GoldenAnswer:
    """What the model made of one case: for a decision all labels, else the one answer that was scored."""

    text: str
    label: str
    probabilities: dict[str, float]


@dataclass(frozen=True)
class GoldenBook:
    """Where the records of one model in one precision lie; `shipped` is None for a model that came without any."""

    model_sha: str
    precision: str
    own: Path
    shipped: Path | None

    def read(self, task: Task) -> tuple[tuple[GoldenAnswer, ...], bool] | None:
        """The record for `task` and whether it was shipped; None if there is none for exactly these cases."""
        for folder in (self.shipped, self.own):
            answers = _read_record(folder / self._name(task)) if folder else None
            if answers and [answer.text for answer in answers] == [case.text for case in task.golden]:
                return answers, folder is self.shipped
        return None

    def write(self, task: Task, answers: Sequence[GoldenAnswer]) -> None:
        """Keep `answers` as what this model answers from now on. A folder that cannot be written is only told."""
        path = self.own / self._name(task)
        partial = path.with_suffix(f".{os.getpid()}.tmp")
        try:
            self.own.mkdir(parents=True, exist_ok=True)
            lines = ",\n".join(json.dumps(asdict(answer), ensure_ascii=False) for answer in answers)
            partial.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
            partial.replace(path)
        except OSError as exc:
            log.warning("golden record of task %s not kept: %s", task.name, exc)

    def _name(self, task: Task) -> str:
        return f"{self.model_sha}-{task.name}-{task.hash}-{self.precision}.json"


def _read_record(path: Path) -> tuple[GoldenAnswer, ...] | None:
    if not path.is_file():
        return None
    try:
        return tuple(GoldenAnswer(**entry) for entry in json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as exc:
        log.warning("golden record %s is damaged and will be written anew: %s", path, exc)
        return None


async def check_golden(
    engine: Engine, tasks: Mapping[str, Task], book: GoldenBook, *, policy: Policy | None
) -> dict[str, str]:
    """Task name -> "ok ...", "recorded ..." or what differs. Raises GoldenMismatch where the policy is strict.

    Without a stated policy a shipped record is strict and one's own only warns.
    """
    if policy == "off":
        return dict.fromkeys(tasks, "off")
    outcome: dict[str, str] = {}
    for task in tasks.values():
        answers = [await _ask(engine, PromptTemplate(task), task, case) for case in task.golden]
        record = book.read(task)
        if record is None:
            book.write(task, answers)
            outcome[task.name] = f"recorded {len(answers)} cases"
            continue
        expected, is_shipped = record
        outcome[task.name] = _judge(task, expected, answers, strict=(policy or _default(is_shipped)) == "strict")
    return outcome


def _default(is_shipped: bool) -> Policy:
    return "strict" if is_shipped else "warn"


def _judge(task: Task, expected: Sequence[GoldenAnswer], answers: Sequence[GoldenAnswer], *, strict: bool) -> str:
    differing = [_difference(old, new) for old, new in zip(expected, answers, strict=True) if not _agree(old, new)]
    if not differing:
        return f"ok {len(answers)} cases"
    told = f"{len(differing)} of {len(answers)} golden cases of task {task.name} changed: {'; '.join(differing)}"
    if strict:
        raise GoldenMismatch(
            f"{told}. The model file, its precision or the template is not what it was; "
            "restore it, or start with --golden warn"
        )
    log.warning("%s", told)
    return told


def _agree(old: GoldenAnswer, new: GoldenAnswer) -> bool:
    return (
        old.label == new.label
        and old.probabilities.keys() == new.probabilities.keys()
        and all(abs(old.probabilities[name] - new.probabilities[name]) <= TOLERANCE for name in old.probabilities)
    )


def _difference(old: GoldenAnswer, new: GoldenAnswer) -> str:
    was, now = old.probabilities.get(old.label, 0.0), new.probabilities.get(new.label, 0.0)
    return f"{old.text[:40]!r}: {old.label} {was:.3f} became {new.label} {now:.3f}"


async def _ask(engine: Engine, template: PromptTemplate, task: Task, case: GoldenCase) -> GoldenAnswer:
    continuations = [label.text for label in task.labels] or [case.answer or ""]
    scores = await engine.score(f"golden-{task.name}", template.prompt(case.text), continuations)
    if task.kind == "decision":
        decision = decide(task, scores)
        return GoldenAnswer(case.text, decision.label, {name: round(p, 4) for name, p in decision.scores.items()})
    # Per token, so that long answers are not all equally improbable.
    (score,) = scores.labels
    probability = math.exp(score.logprob / max(1, score.num_tokens))
    return GoldenAnswer(case.text, score.text, {score.text: round(probability, 4)})
