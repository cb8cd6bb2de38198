"""What a visitor does with a file of rows: see its columns, put its texts to a decision task, stop. Knows no Gradio.

Where the file has a column of true labels, the rows are judged, too. Nothing is kept after the last view.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, replace
from itertools import islice

from qwen_aio.bulk.asking import Asker, Labelled
from qwen_aio.bulk.columns import UTF8_MARK, added_columns, added_values
from qwen_aio.bulk.table import Row, RowTable
from qwen_aio.core import Capabilities, Label, Request, Service, Task
from qwen_aio.errors import InvalidRequest, InvalidSettings, QwenAioError
from qwen_aio.evaluation.evaluation import Evaluation
from qwen_aio.evaluation.judged import Judged, Truths
from qwen_aio.evaluation.judging import Judge, Source
from qwen_aio.evaluation.metrics import metrics_of
from qwen_aio.evaluation.share import Share
from qwen_aio.result import Done, Result
from qwen_aio.ui.handlers import MonotonicClock, notice_of
from qwen_aio.ui.sent_file import sent_table
from qwen_aio.ui.session import Session
from qwen_aio.ui.view import Notice

MAX_ROWS = 2000
AT_ONCE = 16  # rows of one tab that are asked about at the same time: messages of others pass between them
LOOKED_AT = 100  # rows from which the columns are guessed
MAX_COLUMNS = 200
NO_TRUTH = "its true label is none of the task's"
FLUSH_S = 0.25  # progress reaches the page at most this often


@dataclass(frozen=True)
class Columns:
    """The columns of a chosen file, and which of them seem to hold the texts and their true labels."""

    names: tuple[str, ...] = ()
    num_rows: int = 0
    text: str | None = None
    truth: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What came of the rows."""

    name: str  # of the file with the labels
    labelled: str  # its content
    probabilities: tuple[tuple[float, bool | None], ...]  # of the best label; is it right, if that is known
    shares: Mapping[Label, Share]  # of the decided rows
    left_out: Counter[str]  # why -> rows, of those so far
    seconds: float
    evaluation: Evaluation | None  # where true labels are known


@dataclass(frozen=True)
class FileView:
    """What the page shows of a file. `columns` None: the choices stay."""

    columns: Columns | None = None
    done: int = 0
    total: int = 0
    is_running: bool = False
    outcome: Outcome | None = None
    notices: tuple[Notice, ...] = ()


@dataclass(frozen=True)
class LabellingJob:
    """A visitor's choices. `meanings`: `5=positive 1=negative` for values that are neither label nor text of one."""

    task: str
    text_column: str
    truth_column: str | None = None
    meanings: str = ""


class FileHandlers:
    """The verbs of the second tab. Stateless: what lasts is in the visitor's Session."""

    def __init__(self, service: Service, *, url: str | None = None, clock: MonotonicClock = time.monotonic) -> None:
        """`url` as for Handlers."""
        self._service = service
        self._url = url
        self._clock = clock

    async def look(self, session: Session, said: str, task: str) -> FileView:
        """The columns of the file in `said`."""
        notices: tuple[Notice, ...] = ()
        try:
            columns = await asyncio.to_thread(_look, said, session.tasks.get(task))
        except QwenAioError as exc:
            columns, notices = Columns(), (self._sentence(exc),)
        session.columns = columns.names
        return FileView(columns, notices=notices)

    async def label(self, session: Session, said: str, job: LabellingJob) -> AsyncGenerator[FileView, None]:
        """Progress, then the outcome: of the rows so far if it was stopped. Closing it ends the work."""
        if session.file.is_taken:
            return
        with session.file.taken() as stop:
            try:
                judge = await Judge.of(_Streamed(self._service), job.task)
                with ExitStack() as stack:
                    table = await asyncio.to_thread(stack.enter_context, sent_table(said))
                    labelling = await asyncio.to_thread(Labelling, table, job, judge, clock=self._clock)
                    flushed_at = self._clock()
                    yield labelling.progress
                    async with aclosing(labelling.run()) as steps:
                        while await stop.next(steps) is not None:
                            if self._clock() - flushed_at >= FLUSH_S:
                                flushed_at = self._clock()
                                yield labelling.progress
                    notices = (Notice("file_stopped", {"count": labelling.num_done}),) if stop.is_thrown else ()
                    yield FileView(outcome=await asyncio.to_thread(labelling.outcome), notices=notices)
            except QwenAioError as exc:
                yield FileView(notices=(self._sentence(exc),))

    def _sentence(self, error: QwenAioError) -> Notice:
        if isinstance(error, InvalidRequest | InvalidSettings):
            return Notice("file_refused", {"message": error.message}, is_error=True)
        return notice_of(error, url=self._url)


class Labelling:
    """The rows of a table on their way through a task."""

    def __init__(self, table: RowTable, job: LabellingJob, judge: Judge, *, clock: MonotonicClock) -> None:
        """Raises InvalidRequest, InvalidSettings."""
        self._table, self._job, self._judge, self._clock = table, job, judge, clock
        self._total = _num_rows(table)
        self._task = judge.task
        for column in filter(None, (job.text_column, job.truth_column)):
            if column not in table.columns:
                raise InvalidRequest(f"it has no column {column!r}")
        self._truths: Mapping[int, str] | None = None
        if job.truth_column:
            source = Source(table, job.text_column, job.truth_column, job.meanings.replace(",", " ").split())
            self._truths, _ = source.truths(self._task)
        self._left_out: Counter[str] = Counter()
        self._names = added_columns(table.columns, self._task)
        self._lines = [("" if table.encoding == "utf-8" else UTF8_MARK) + table.heading(self._names)]
        self._rows: list[Judged] = []  # of the decided ones; without a true label, "" is theirs
        self._began = self._ended = clock()
        self.num_done = 0

    @property
    def progress(self) -> FileView:
        return FileView(done=self.num_done, total=self._total, is_running=True)

    async def run(self) -> AsyncGenerator[int, None]:
        """The number of rows done, after each. Raises what no row is to blame for."""
        request = replace(self._judge.request, request_id="page-file")
        asker = Asker(self._judge.asked, request, self._table, self._job.text_column, at_once=AT_ONCE)
        async with aclosing(asker.labelled(self._table.rows())) as rows:
            async for labelled in rows:
                self._take(labelled)
                yield self.num_done

    def _take(self, labelled: Labelled) -> None:
        values = dict(zip(self._names, added_values(labelled, self._task), strict=True))
        self._lines.append(self._table.line(labelled.row, values))
        decision = labelled.result.decision if labelled.result else None
        number = labelled.row.number
        truth = (self._truths or {}).get(number, "")
        if decision is None:
            self._left_out[labelled.fault or "no decision"] += 1
        else:
            text = self._table.value(labelled.row, self._job.text_column)
            self._rows.append(Judged.of(number, text, truth, decision))
            if self._truths is not None and not truth:
                self._left_out[NO_TRUTH] += 1
        self.num_done += 1
        self._ended = self._clock()

    def outcome(self) -> Outcome:
        """Of the rows so far."""
        judged = [row for row in self._rows if row.truth]
        known = self._truths is not None
        shown = judged if known else self._rows
        counts = Counter(row.label for row in self._rows)
        path = self._table.path
        return Outcome(
            name=f"{path.stem}-{self._task.name}{path.suffix or '.csv'}",
            labelled="".join(self._lines),
            probabilities=tuple((row.probability, row.is_best_right if known else None) for row in shown),
            shares={label: Share(counts[label.name], len(self._rows)) for label in self._task.labels},
            left_out=self._left_out,
            seconds=self._ended - self._began,
            evaluation=self._evaluation(judged) if judged else None,
        )

    def _evaluation(self, rows: list[Judged]) -> Evaluation:
        return Evaluation(
            file=self._table.path.name,
            subject=self._judge.subject(rows),
            rows=tuple(rows),
            metrics=metrics_of(rows, self._judge.labels),
            left_out=self._left_out,
            rows_per_s=self.num_done / max(self._ended - self._began, 1e-9),
            flips={},
        )


class _Streamed:
    """A service that only streams, asked for whole results."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def run(self, request: Request) -> Result:
        async with aclosing(self._service.stream(request)) as events:
            async for event in events:
                if isinstance(event, Done):
                    return event.result
        raise AssertionError("a stream ends with Done or raises")

    async def capabilities(self) -> Capabilities:
        return await self._service.capabilities()


def _num_rows(table: RowTable) -> int:
    count = sum(1 for _ in islice(table.rows(), MAX_ROWS + 1))
    if count > MAX_ROWS:
        raise InvalidRequest(f"it has more than {MAX_ROWS} rows; for such files there is `qwen-aio classify`")
    if not count:
        raise InvalidRequest("it has no rows")
    return count


def _look(said: str, task: Task | None) -> Columns:
    with sent_table(said) as table:
        return _columns(table, task)


def _columns(table: RowTable, task: Task | None) -> Columns:
    """The labels are guessed to be where values are labels of `task`, the texts in the longest of the other columns."""
    num_rows, names = _num_rows(table), tuple(dict.fromkeys(table.columns))
    if not names:
        raise InvalidRequest("its rows have no columns")
    if len(names) > MAX_COLUMNS:
        raise InvalidRequest(f"it has more than {MAX_COLUMNS} columns")
    rows = list(islice(table.rows(), LOOKED_AT))
    values = {name: [_value(table, row, name) for row in rows] for name in names}
    known = Truths(task, []) if task and len(names) > 1 else None
    truth = next((name for name in names if known and _are_labels(values[name], known)), None)
    text = max((name for name in names if name != truth), key=lambda name: sum(map(len, values[name])))
    return Columns(names, num_rows, text, truth)


def _value(table: RowTable, row: Row, column: str) -> str:
    try:
        return table.value(row, column) if row.fault is None else ""
    except InvalidRequest:  # of a row without that column
        return ""


def _are_labels(values: list[str], known: Truths) -> bool:
    """Whether most of the values are labels."""
    num_known = 0
    for value in values:
        try:
            num_known += bool(known.name(value))
        except InvalidRequest:
            continue
    return 2 * num_known > len(values)
