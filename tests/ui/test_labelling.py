"""A file of rows on the second tab, without a browser."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace

import pytest

from qwen_aio.core import Request
from qwen_aio.errors import EngineStopped, InvalidRequest
from qwen_aio.result import Decided, Decision
from qwen_aio.ui.html.file import outcome_html
from qwen_aio.ui.labelling import (
    AT_ONCE,
    MAX_COLUMNS,
    MAX_ROWS,
    NO_TRUTH,
    FileHandlers,
    FileView,
    LabellingJob,
    Outcome,
)
from qwen_aio.ui.session import Session
from qwen_aio.ui.strings import CHINESE, ENGLISH
from qwen_aio.ui.view import Notice
from tests.fakes import FakeClock
from tests.ui.fakes import NEGATIVE, TASKS, FakeService, Script, Step, done
from tests.ui.test_sent_file import said

POSITIVE = replace(
    NEGATIVE,
    label="positive",
    best_label="positive",
    probability=0.7,
    scores={"positive": 0.7, "neutral": 0.2, "negative": 0.1},
)
REVIEWS = 'id,text,label\n1,很好,positive\n2,太差了,负面\n3,"good, ""really""",5\n4,,negative\n5,差,positive\n'
JOB = LabellingJob("sentiment", "text")


def decided(decision: Decision) -> list[Step]:
    return [Decided(decision), done(decision=decision)]


def by_word(text: str) -> Sequence[Step]:
    return decided(POSITIVE if "好" in text or "good" in text else NEGATIVE)


def handlers_of(script: Script | None = None, clock: FakeClock | None = None) -> tuple[FileHandlers, FakeService]:
    service = FakeService(script or (lambda request: by_word(request.text)))
    return FileHandlers(service, clock=clock or FakeClock()), service


def visitor() -> Session:
    session = Session()
    session.tasks = TASKS
    return session


async def labelled(content: str, job: LabellingJob = JOB, *, session: Session | None = None) -> FileView:
    handlers, _ = handlers_of()
    return [view async for view in handlers.label(session or visitor(), said(content.encode()), job)][-1]


async def outcome_of(content: str, job: LabellingJob = JOB) -> Outcome:
    view = await labelled(content, job)
    assert view.outcome is not None and not view.is_running and view.notices == ()
    return view.outcome


def refusal(view: FileView) -> str:
    (notice,) = view.notices
    assert notice.is_error and view.outcome is None and not view.is_running
    return f"{notice.key} {notice.values['message']}"


async def test_the_columns_of_texts_and_labels_are_guessed() -> None:
    handlers, _ = handlers_of()
    session = visitor()
    view = await handlers.look(session, said(REVIEWS.encode()), "sentiment")
    assert view.columns is not None
    assert (view.columns.names, view.columns.num_rows) == (("id", "text", "label"), 5)
    assert (view.columns.text, view.columns.truth) == ("text", "label")
    assert session.columns == ("id", "text", "label")


@pytest.mark.parametrize("content", ["a,b\nlong text here,x\nanother,y\n", '{"a": "some text", "b": 1}\n{"c": 2}\n'])
async def test_without_known_labels_no_column_of_labels_is_guessed(content: str) -> None:
    handlers, _ = handlers_of()
    name = "rows.jsonl" if content[0] == "{" else "rows.csv"
    view = await handlers.look(visitor(), said(content.encode(), name), "sentiment")
    assert view.columns is not None and (view.columns.text, view.columns.truth) == ("a", None)


async def test_a_file_of_many_columns_is_looked_at_once_and_one_of_too_many_is_refused() -> None:
    handlers, _ = handlers_of()
    for count in (MAX_COLUMNS, MAX_COLUMNS + 1):
        heading = ",".join(f"c{number}" for number in range(count))
        view = await handlers.look(visitor(), said(f"{heading}\n{'x,' * (count - 1)}long\n".encode()), "sentiment")
        assert view.columns is not None
        if count == MAX_COLUMNS:
            assert view.columns.text == f"c{count - 1}"
        else:
            assert "more than 200 columns" in refusal(view)


async def test_every_row_gets_its_label_and_keeps_its_columns() -> None:
    outcome = await outcome_of(REVIEWS)
    heading, *rows = csv.reader(io.StringIO(outcome.labelled))
    assert heading == ["id", "text", "label", "sentiment_label", "probability", "confidence", "error"]
    assert [row[3] for row in rows] == ["positive", "negative", "positive", "", "negative"]
    assert rows[2][1] == 'good, "really"' and rows[3][6]
    assert {label.name: share.count for label, share in outcome.shares.items()} == {
        "positive": 2,
        "neutral": 0,
        "negative": 2,
    }
    assert sum(outcome.left_out.values()) == 1 and outcome.evaluation is None
    assert outcome.name == "reviews-sentiment.csv"
    assert outcome.probabilities == ((0.7, None), (0.94, None), (0.7, None), (0.94, None))


async def test_with_true_labels_the_rows_are_judged() -> None:
    outcome = await outcome_of(REVIEWS, replace(JOB, truth_column="label", meanings="5=positive, 1=negative"))
    assert outcome.evaluation is not None
    assert (outcome.evaluation.metrics.num_rows, outcome.evaluation.metrics.accuracy.value) == (4, 0.75)
    assert outcome.probabilities == ((0.7, True), (0.94, True), (0.7, True), (0.94, False))


async def test_a_row_without_a_known_label_is_labelled_but_not_judged() -> None:
    outcome = await outcome_of(REVIEWS, replace(JOB, truth_column="label"))
    assert outcome.evaluation is not None and outcome.evaluation.metrics.num_rows == 3
    assert sum(share.count for share in outcome.shares.values()) == 4
    assert outcome.left_out[NO_TRUTH] == 1 and sum(outcome.left_out.values()) == 2


@pytest.mark.parametrize(
    ("content", "job", "why"),
    [
        ("text\n" + "x\n" * (MAX_ROWS + 1), JOB, "more than 2000 rows"),
        ("text\n", JOB, "no rows"),
        (REVIEWS, replace(JOB, text_column="other"), "no column 'other'"),
        (REVIEWS, replace(JOB, truth_column="gone"), "no column 'gone'"),
        (REVIEWS, replace(JOB, truth_column="id"), "no row can be judged"),
        (REVIEWS, replace(JOB, truth_column="label", meanings="5=great"), "write VALUE=LABEL"),
        (REVIEWS, replace(JOB, task="chat"), "no decision task"),
        (REVIEWS, replace(JOB, task="gone"), "no decision task"),
        ('text\nfine\n"open', JOB, "has no end"),
    ],
)
async def test_what_cannot_be_done_is_said_before_anything_is_asked(content: str, job: LabellingJob, why: str) -> None:
    handlers, service = handlers_of()
    session = visitor()
    [*_, view] = [view async for view in handlers.label(session, said(content.encode()), job)]
    assert refusal(view).startswith("file_refused") and why in refusal(view)
    assert service.requests == [] and not session.file.is_taken


async def test_exactly_as_many_rows_as_the_page_takes() -> None:
    outcome = await outcome_of("text\n" + "好\n" * MAX_ROWS)
    assert len(outcome.probabilities) == MAX_ROWS


async def test_a_row_that_is_refused_is_left_out_alone() -> None:
    handlers, _ = handlers_of(lambda request: [InvalidRequest("odd")] if request.text == "x" else by_word(request.text))
    [*_, view] = [view async for view in handlers.label(visitor(), said(b"text\nx\ny\n"), JOB)]
    assert view.outcome is not None and view.outcome.left_out == {"odd": 1}


async def test_a_server_that_stops_ends_the_run_with_its_sentence() -> None:
    handlers, service = handlers_of(lambda _: [EngineStopped("gone")])
    session = visitor()
    [*_, view] = [view async for view in handlers.label(session, said(REVIEWS.encode()), JOB)]
    assert refusal(view) == "engine_stopped gone"
    assert service.num_open == 0 and not session.file.is_taken


async def test_stop_ends_what_is_asked_and_shows_the_rows_so_far() -> None:
    clock = FakeClock()

    def script(request: Request) -> Sequence[Step]:
        return [asyncio.Event()] if request.text == "endless" else by_word(request.text)

    handlers, service = handlers_of(script, clock)
    session = visitor()
    content = "text,label\n好,正面\nendless,正面\n" + "好,正面\n" * 50
    async for view in handlers.label(session, said(content.encode()), replace(JOB, truth_column="label")):
        clock.advance(1)  # so that the first row is told at once
        if view.done == 1:
            session.file.stop()
    assert view.notices == (Notice("file_stopped", {"count": 1}),)
    assert view.outcome is not None and view.outcome.evaluation is not None
    assert view.outcome.evaluation.metrics.num_rows == 1
    assert service.num_open == 0 and len(service.requests) <= AT_ONCE + 1 and not session.file.is_taken


async def test_stopped_before_any_row_shows_nothing_wrong() -> None:
    handlers, _ = handlers_of(lambda _: [asyncio.Event()])
    session = visitor()
    async with aclosing(handlers.label(session, said(REVIEWS.encode()), replace(JOB, truth_column="label"))) as views:
        assert (await anext(views)).is_running
        session.file.stop()
        view = await anext(views)
    assert view.outcome is not None and view.outcome.evaluation is None
    page = outcome_html(view.outcome, ENGLISH)
    assert "0 rows" in page and "nan" not in page and "threshold" not in page


async def test_a_closed_tab_ends_the_run_and_a_second_click_does_nothing() -> None:
    handlers, service = handlers_of(lambda _: [asyncio.Event()])
    session = visitor()
    async with aclosing(handlers.label(session, said(REVIEWS.encode()), JOB)) as views:
        await anext(views)
        assert [view async for view in handlers.label(session, said(REVIEWS.encode()), JOB)] == []
        assert session.file.is_taken
    assert service.num_open == 0 and not session.file.is_taken


async def test_progress_comes_a_few_times_a_second() -> None:
    clock = FakeClock()
    handlers, _ = handlers_of(lambda request: [lambda: clock.advance(0.1), *by_word(request.text)], clock)
    views = [view async for view in handlers.label(visitor(), said(b"text\n" + b"hi\n" * 20), JOB)]
    progress = [view.done for view in views if view.is_running]
    assert progress[0] == 0 and progress == sorted(progress) and 3 <= len(progress) <= 9
    assert all(view.total == 20 for view in views if view.is_running)


async def test_what_came_of_it_is_html_that_text_cannot_break() -> None:
    hostile = '"><script>alert(1)</script>'
    content = io.StringIO()
    csv.writer(content).writerows([["text", "label"], [hostile, "正面"], ["好", hostile]])
    outcome = await outcome_of(content.getvalue(), replace(JOB, truth_column="label"))
    for words in (ENGLISH, CHINESE):
        page = outcome_html(outcome, words)
        assert "<script" not in page and page.count("<iframe") == 1
    assert "Negative" in outcome_html(outcome, ENGLISH) and "负面" in outcome_html(outcome, CHINESE)
