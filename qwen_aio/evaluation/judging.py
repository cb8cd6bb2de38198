"""Putting labelled rows to a decision task: the rows of a file, and a sample of them in other typings."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace

from tqdm import tqdm  # type: ignore[import-untyped]  # tqdm ships no types

from qwen_aio.bulk.asking import AT_ONCE, Asked, Asker, Patient
from qwen_aio.bulk.table import Row, RowTable
from qwen_aio.core import Request, Task
from qwen_aio.errors import InvalidRequest, InvalidSettings
from qwen_aio.evaluation.evaluation import Subject
from qwen_aio.evaluation.judged import Judged, Truths
from qwen_aio.evaluation.share import Share
from qwen_aio.evaluation.typings import TYPINGS

MAX_ROWS = 200_000  # they are kept in memory
FLIP_ROWS = 300  # a sample
SEED = 0


def reordered_name(task: str) -> str:
    """Of the task with its labels in another order."""
    return f"{task}-reordered"


def reordered(task: Task) -> Task:
    """The task with its labels the other way round, which a prompt shows that lists them by `labels`."""
    return replace(task, name=reordered_name(task.name), labels=task.labels[::-1], rules=(), golden=())


class Judge:
    """A task on a service."""

    def __init__(self, asked: Asked, task: Task, model: str) -> None:
        self.asked = Patient(asked)
        self.task = task
        self.model = model
        self.request = Request("-", mode=task.name, request_id="eval")

    @classmethod
    async def of(cls, asked: Asked, name: str) -> Judge:
        """Raises InvalidSettings for a task that decides nothing."""
        offer = await asked.capabilities()
        decisions = sorted(task.name for task in offer.tasks.values() if task.kind == "decision")
        if name not in decisions:
            raise InvalidSettings(f"{name!r} is no decision task; there are: {', '.join(decisions)}")
        return cls(asked, offer.tasks[name], offer.model)

    @property
    def labels(self) -> list[str]:
        return [label.name for label in self.task.labels]

    def subject(self, rows: Sequence[Judged]) -> Subject:
        """What has judged `rows`."""
        is_calibrated = any(row.is_calibrated for row in rows)
        return Subject(self.task.name, self.task.hash, self.model, is_calibrated)


class Source:
    """The labelled rows of a file."""

    def __init__(self, table: RowTable, text_column: str, label_column: str, others: Sequence[str]) -> None:
        self._table = table
        self._text = text_column
        self._label = label_column
        self._others = others

    async def judged(
        self, judge: Judge, *, title: str, most: int = MAX_ROWS, only: Collection[int] | None = None
    ) -> tuple[list[Judged], Counter[str]]:
        """All rows that have a label and get a decision, and the count of the others by reason.

        Of more than `most` labelled rows, that many are drawn; `only`: the numbers of the rows that are wanted.
        Raises InvalidSettings if no row can be judged, or there are too many.
        """
        truths, left_out = self.truths(judge.task, only)
        if len(truths) > most:
            truths = dict(random.Random(SEED).sample(list(truths.items()), most))
        found = []
        labelled = (row for row in self._table.rows() if row.number in truths)
        with tqdm(total=len(truths), desc=title, unit="row", disable=None) as bar:
            async for outcome in Asker(judge.asked, judge.request, self._table, self._text).labelled(labelled):
                bar.update()
                if outcome.result is None or outcome.result.decision is None:
                    left_out[outcome.fault or "no decision"] += 1
                    continue
                decision = outcome.result.decision
                number, text = outcome.row.number, self._table.value(outcome.row, self._text)
                found.append(Judged.of(number, text, truths[number], decision))
        if not found:
            raise _nothing_to_judge(left_out)
        return found, left_out

    def truths(self, task: Task, only: Collection[int] | None = None) -> tuple[dict[int, str], Counter[str]]:
        """Row number -> true label, and the count of rows without one by reason.

        Raises InvalidSettings as `judged` does.
        """
        names = Truths(task, self._others)
        found: dict[int, str] = {}
        left_out: Counter[str] = Counter()
        for row in self._table.rows():
            if only is not None and row.number not in only:
                continue
            try:
                found[row.number] = names.name(self._written(row))
            except InvalidRequest as exc:
                left_out[exc.message] += 1
            if len(found) > MAX_ROWS:
                raise InvalidSettings(f"more than {MAX_ROWS} labelled rows; a sample tells as much")
        if not found:
            raise _nothing_to_judge(left_out)
        return found, left_out

    def _written(self, row: Row) -> str:
        if row.fault:
            raise InvalidRequest(row.fault)
        return self._table.value(row, self._label)


def _nothing_to_judge(left_out: Counter[str]) -> InvalidSettings:
    reasons = "; ".join(f"{count} rows: {why}" for why, count in left_out.most_common(3))
    return InvalidSettings(f"no row can be judged: {reasons or 'the file has none'}")


async def flips_of(judge: Judge, rows: Sequence[Judged], *, reordered: str | None) -> dict[str, Share]:
    """Typing -> the rows of a sample whose label changes, of those that the typing changes.

    `reordered` is the task with its labels in another order.
    """
    sample = random.Random(SEED).sample(list(rows), min(FLIP_ROWS, len(rows)))
    found = {}
    for name, retyped in TYPINGS.items():
        changed = [(row, text) for row in sample if (text := retyped(row.text)) != row.text]
        labels = await _labels(judge.asked, judge.request, [text for _, text in changed])
        if changed:
            found[name] = _flipped([row for row, _ in changed], labels)
    if reordered:
        request = replace(judge.request, mode=reordered)
        found["label order"] = _flipped(sample, await _labels(judge.asked, request, [row.text for row in sample]))
    return found


def _flipped(rows: Sequence[Judged], labels: Sequence[str | None]) -> Share:
    """Of the rows that were not refused."""
    pairs = [(row.label, label) for row, label in zip(rows, labels, strict=True) if label is not None]
    return Share(sum(before != after for before, after in pairs), len(pairs))


async def _labels(asked: Asked, request: Request, texts: Sequence[str]) -> list[str | None]:
    """The label of each text; None where it is refused."""

    async def label(text: str) -> str | None:
        try:
            decision = (await asked.run(replace(request, text=text))).decision
        except InvalidRequest:
            return None
        return decision.label if decision else None

    parts = (texts[start : start + AT_ONCE] for start in range(0, len(texts), AT_ONCE))
    return [found for part in parts for found in await asyncio.gather(*map(label, part))]
