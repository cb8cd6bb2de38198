"""Golden cases: a model must reproduce its recorded answers.

They guard against a broken model file, a wrong precision or a damaged template, not against a weak
model: the first start of a model with a task records its answers, every later start must reproduce
them. A changed task is compared with the last record: probabilities may move, but every start names
a label that flips until its owner accepts it (`qwen-aio tasks lint --accept`).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from qwen_aio.core import GoldenCase, Task
from qwen_aio.errors import GoldenMismatch
from qwen_aio.tasks.parse import decide
from qwen_aio.tasks.template import PromptTemplate
from qwen_aio.worker.execution.engine import EngineClient
from qwen_aio.worker.golden_book import GoldenAnswer, GoldenBook, GoldenRecord

TOLERANCE = 0.02  # of a probability, between machines and thread counts
FALLEN = 0.5  # share of its former probability below which an answer counts as flipped
NAMED_CASES = 3  # of those that differ; the sentence also travels in status.json
OnMismatch = Literal["strict", "warn", "off"]
Cause = Literal["changed", "moved", "shipped"]  # task or precision differ; neither does; neither may
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class GoldenOutcome:
    """The result of the golden cases of one task."""

    head: str  # "ok ...", "recorded ...", or how many cases differ
    answers: tuple[GoldenAnswer, ...]  # for the record from now on
    differing: tuple[str, ...] = ()  # every case that differs, named
    cause: Cause | None = None  # None if the cases hold

    @property
    def message(self) -> str:
        """One line, which names some of the cases that differ."""
        if not self.differing:
            return self.head
        more = f" and {len(self.differing) - NAMED_CASES} more" if len(self.differing) > NAMED_CASES else ""
        return f"{self.head}: {'; '.join(self.differing[:NAMED_CASES])}{more}"


async def check_golden(
    engine: EngineClient, tasks: Mapping[str, Task], book: GoldenBook, *, policy: OnMismatch | None
) -> dict[str, str]:
    """Task name -> "ok ...", "recorded ..." or the differences. Raises GoldenMismatch if strict.

    Without a policy, a shipped record is strict; an own record and a changed task only warn. Every
    policy refuses a model that computes no numbers.
    """
    if policy == "off":
        return dict.fromkeys(tasks, "off")
    messages: dict[str, str] = {}
    for task in tasks.values():
        outcome = await examine(engine, task, book)
        if outcome.cause is None:
            book.keep(task, outcome.answers)
        else:
            _warn(task, outcome, policy)
        messages[task.name] = outcome.message
    return messages


async def ask_cases(engine: EngineClient, task: Task) -> tuple[GoldenAnswer, ...]:
    """The model's answers now. Raises GoldenMismatch if it computes no numbers."""
    template = PromptTemplate(task)
    return tuple([await _ask(engine, template, task, case) for case in task.golden])


async def examine(engine: EngineClient, task: Task, book: GoldenBook) -> GoldenOutcome:
    """Compare the model's answers with the record. Raises GoldenMismatch if they are no numbers."""
    record = book.read(task)
    answers = await ask_cases(engine, task)
    if record is None:
        return GoldenOutcome(f"recorded {len(answers)} cases", answers)
    pairs = [(record.find(case), new) for case, new in zip(task.golden, answers, strict=True)]
    if record.model_sha == book.model_sha and not record.is_of(task, book.precision):
        return _compare_changed(task, record, pairs, precision=book.precision)
    return _compare_same(task, record, pairs, model_sha=book.model_sha)


Pairs = Sequence[tuple[GoldenAnswer | None, GoldenAnswer]]  # the recorded answer, if any, and the one now


def _compare_same(task: Task, record: GoldenRecord, pairs: Pairs, *, model_sha: str) -> GoldenOutcome:
    """Every probability must be what it was."""
    differing = tuple(_change(old, new) for old, new in pairs if old is not None and not _agree(old, new))
    kept = tuple(old or new for old, new in pairs)  # not the new ones: small wobbles must not add up
    if not differing and record.model_sha == model_sha:
        return GoldenOutcome(f"ok {len(pairs)} cases{_come_and_gone(record, pairs)}", kept)
    head = f"{len(differing)} of {len(pairs)} golden cases of task {task.name} changed"
    if record.model_sha != model_sha:
        head = f"{head}, the model files (hash {model_sha}) are not those that shipped ({record.model_sha})"
    answers = tuple(new for _, new in pairs)
    return GoldenOutcome(head, answers, differing, cause="shipped" if record.is_shipped else "moved")


def _compare_changed(task: Task, record: GoldenRecord, pairs: Pairs, *, precision: str) -> GoldenOutcome:
    """Probabilities may have moved, labels must not."""
    answers = tuple(new for _, new in pairs)
    differing = tuple(_change(old, new) for old, new in pairs if old is not None and _is_flipped(task, old, new))
    what = "the task was changed" if record.task_hash != task.hash else f"now {precision}, before {record.precision}"
    since = f"{what}{_come_and_gone(record, pairs)}"
    kind = "label" if task.kind == "decision" else "answer"
    if not differing:
        return GoldenOutcome(f"ok {len(pairs)} cases: {since}, no {kind} flipped", answers)
    head = f"changed: {len(differing)} of {len(pairs)} {kind}s flipped ({since})"
    return GoldenOutcome(head, answers, differing, cause="changed")


def _warn(task: Task, outcome: GoldenOutcome, policy: OnMismatch | None) -> None:
    """Log every difference. Raises GoldenMismatch if the policy is strict."""
    logger.warning("golden cases of task %s: %s", task.name, outcome.message)
    for line in outcome.differing[NAMED_CASES:]:
        logger.warning("golden cases of task %s: also %s", task.name, line)
    if policy == "strict" or (policy is None and outcome.cause == "shipped"):
        raise GoldenMismatch(f"task {task.name}: {outcome.message}. {remedy(task, outcome)}")


def remedy(task: Task, outcome: GoldenOutcome) -> str:
    """Advice for cases that differ."""
    accept = f"accept it with: qwen-aio tasks lint {task.name} --accept (and this --model, --precision, --prompts-dir)"
    if outcome.cause == "changed":
        return f"If that is meant, {accept}; else put the task back"
    if outcome.cause == "moved":
        return f"The task is what it was and the answers are not; if an update explains it, {accept}"
    return "The model files or the template are not what they were; restore them, or start with --golden warn"


def _come_and_gone(record: GoldenRecord, pairs: Pairs) -> str:
    new = sum(old is None for old, _ in pairs)
    gone = len(record.answers) - (len(pairs) - new)
    return "".join(f", {count} {what}" for count, what in ((new, "new"), (gone, "gone")) if count > 0)


def _agree(old: GoldenAnswer, new: GoldenAnswer) -> bool:
    return (
        old.label == new.label
        and old.probabilities.keys() == new.probabilities.keys()
        and all(abs(old.probabilities[name] - new.probabilities[name]) <= TOLERANCE for name in old.probabilities)
    )


def _is_flipped(task: Task, old: GoldenAnswer, new: GoldenAnswer) -> bool:
    """Whether the label changed, or the answer of a generation task became far less likely."""
    if task.kind == "decision":
        return old.label != new.label
    return new.probabilities[new.label] < old.probabilities[old.label] * FALLEN


def _change(old: GoldenAnswer, new: GoldenAnswer) -> str:
    return f"{old.text[:40]!r}: {_describe(old)} became {_describe(new)}"


def _describe(answer: GoldenAnswer) -> str:
    """The label with its probability; if it is neutral because none was clear, the best label's."""
    best = max(answer.probabilities, key=lambda name: answer.probabilities[name])
    described = f"{best} {answer.probabilities[best]:.3f}"
    return described if best == answer.label else f"{answer.label} (unsure: {described})"


async def _ask(engine: EngineClient, template: PromptTemplate, task: Task, case: GoldenCase) -> GoldenAnswer:
    continuations = [label.text for label in task.labels] or [case.answer or ""]
    scores = await engine.score(f"golden-{task.name}", template.prompt(case.text), continuations)
    if any(math.isnan(score.logprob) for score in scores.labels):
        raise GoldenMismatch(f"the model gives no numbers (NaN) for {case.text[:40]!r}: its weights are damaged")
    if task.kind == "decision":
        decision = decide(task, scores)
        return GoldenAnswer(case.text, decision.label, {name: round(p, 4) for name, p in decision.scores.items()})
    # Per token: otherwise every long answer is improbable.
    (score,) = scores.labels
    probability = math.exp(score.logprob / max(1, score.num_tokens))
    return GoldenAnswer(case.text, score.text, {score.text: round(probability, 4)})
