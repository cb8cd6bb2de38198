"""What a visitor's acts lead to, without a browser."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from itertools import pairwise

import pytest

from qwen_aio.core import Message, Request
from qwen_aio.errors import (
    AnswerBroken,
    BadReply,
    ConnectionLost,
    DeadlineExceeded,
    EngineStopped,
    HostRefused,
    NotReady,
    NoWorker,
    PoisonRequest,
    QueueFull,
    QwenAioError,
    ServerUnreachable,
)
from qwen_aio.result import Decided, Event, TextDelta, Truncation
from qwen_aio.ui.handlers import FLUSH_S, MAX_TEXT_CHARS, Ask, Handlers
from qwen_aio.ui.session import Session
from qwen_aio.ui.tab import TabState
from qwen_aio.ui.view import MAX_EXCHANGES_SENT, Exchange, Notice, View
from tests.fakes import FakeClock
from tests.ui.fakes import NEGATIVE, TASKS, FakeService, Step, both, done, tokens


def serving(*steps: Step, clock: FakeClock | None = None) -> tuple[Handlers, FakeService]:
    service = FakeService(lambda _: steps)
    return Handlers(service, clock=clock or FakeClock()), service


def visitor() -> Session:
    session = Session()
    session.tasks = TASKS
    return session


async def views(handlers: Handlers, session: Session, ask: Ask) -> list[View]:
    return [view async for view in handlers.submit(session, ask)]


async def last(handlers: Handlers, session: Session, ask: Ask) -> View:
    return (await views(handlers, session, ask))[-1]


def keys(view: View) -> list[str]:
    return [notice.key for notice in view.notices]


async def test_one_submit_fills_both_sides() -> None:
    handlers, service = serving(*both("理解您的心情。"))
    session = visitor()
    shown = await views(handlers, session, Ask(" 有点小失望 "))
    assert shown[0].exchanges == (Exchange("有点小失望"),) and shown[0].is_running and shown[0].draft == ""
    assert shown[1].latest.decision == NEGATIVE
    assert shown[-1].exchanges == (Exchange("有点小失望", "理解您的心情。"),)
    assert shown[-1].latest.result is not None and not shown[-1].is_running
    (request,) = service.requests
    assert request == Request("有点小失望", mode="auto", reply=True, explain=True, request_id=request.request_id)
    assert request.request_id.startswith("page-")
    assert session.view is shown[-1] and not session.is_running


async def test_a_typed_draft_is_left_alone_while_an_answer_streams() -> None:
    handlers, _ = serving(*both("a reply"))
    shown = await views(handlers, visitor(), Ask("hello"))
    assert [view.draft for view in shown[1:]] == [None] * (len(shown) - 1)


async def test_history_holds_finished_exchanges_only() -> None:
    handlers, service = serving(*both("yes"))
    session = visitor()
    session.view = View((Exchange("one", "answer one"), Exchange("stopped before any answer")))
    await views(handlers, session, Ask("two"))
    assert service.requests[0].history == (Message("user", "one"), Message("assistant", "answer one"))


async def test_the_oldest_exchanges_stay_behind_and_the_page_says_so() -> None:
    handlers, service = serving(*both("yes"))
    session = visitor()
    session.view = View(tuple(Exchange(str(number), "a") for number in range(MAX_EXCHANGES_SENT + 3)))
    view = await last(handlers, session, Ask("now"))
    assert len(service.requests[0].history) == 2 * MAX_EXCHANGES_SENT
    assert view.notices == (Notice("turns_dropped", {"count": 3}),)


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (done("ok", truncation=Truncation(dropped_turns=2)), ["turns_dropped"]),
        (done("ok", truncation=Truncation(truncated=True)), ["truncated"]),
        (done("ok", finish_reason="length"), ["length"]),
        (done("ok", finish_reason="extracted"), ["extracted"]),
        (done("ok", truncation=Truncation(1, True), finish_reason="length"), ["turns_dropped", "truncated", "length"]),
        (done("ok", finish_reason="fixed"), []),
    ],
)
async def test_a_full_context_is_shown(end: Event, expected: list[str]) -> None:
    handlers, _ = serving(TextDelta("ok", index=0), end)
    assert keys(await last(handlers, visitor(), Ask("hello", "chat"))) == expected


@pytest.mark.parametrize("mode", ["auto", "sentiment"])
async def test_a_decision_alone_adds_nothing_to_the_conversation(mode: str) -> None:
    handlers, service = serving(Decided(NEGATIVE), done(decision=NEGATIVE))
    shown = await views(handlers, visitor(), Ask("差评", mode, is_enhanced=False))
    assert all(view.exchanges == () for view in shown)
    assert shown[-1].latest.decision == NEGATIVE and shown[-1].latest.text == "差评"
    assert not service.requests[0].reply


async def test_an_unforeseen_answer_enters_the_conversation_with_its_first_token() -> None:
    handlers, _ = serving(*tokens("hello there"), done("hello there"))
    shown = await views(handlers, visitor(), Ask("hi", "auto", is_enhanced=False))
    assert shown[0].exchanges == ()
    assert shown[-1].exchanges == (Exchange("hi", "hello there"),)


async def test_an_expected_answer_that_never_comes_leaves_no_trace() -> None:
    handlers, _ = serving(Decided(NEGATIVE), done(decision=NEGATIVE))
    shown = await views(handlers, visitor(), Ask("hi"))
    assert shown[0].exchanges == (Exchange("hi"),)
    assert shown[-1].exchanges == ()


async def test_streamed_text_is_flushed_at_most_ten_times_a_second() -> None:
    clock = FakeClock()
    steps = [step for piece in tokens("x" * 100, size=1) for step in (lambda: clock.advance(0.03), piece)]
    handlers, _ = serving(*steps, done("x" * 100), clock=clock)
    seen = [(clock.now, view) async for view in handlers.submit(visitor(), Ask("hi", "chat"))]
    times = [time for time, _ in seen[1:-1]]
    assert all(later - earlier >= FLUSH_S for earlier, later in pairwise(times))
    assert len(times) == 25  # every fourth token, the first at once
    assert seen[1][1].exchanges[-1].answer == "x"
    assert seen[-1][1].exchanges[-1].answer == "x" * 100


@pytest.mark.parametrize(
    ("error", "key"),
    [
        (QueueFull("8 wait"), "queue_full"),
        (EngineStopped("gone"), "engine_stopped"),
        (DeadlineExceeded("late"), "deadline_exceeded"),
        (NoWorker("none"), "no_worker"),
        (PoisonRequest("two died"), "poison_request"),
        (AnswerBroken("lost"), "answer_broken"),
        (ConnectionLost("reset"), "connection_lost"),
        (BadReply("html"), "bad_reply"),
        (HostRefused("who?"), "host_refused"),
        (QwenAioError("a code of a later version"), "internal"),
    ],
)
async def test_a_failure_is_shown_and_the_text_returns_to_the_box(error: Exception, key: str) -> None:
    handlers, _ = serving(error)
    session = visitor()
    view = await last(handlers, session, Ask("hello"))
    assert keys(view) == [key] and view.notices[0].is_error
    assert view.draft == "hello" and view.exchanges == () and not view.is_running
    assert not session.is_running


async def test_half_of_a_surrogate_pair_becomes_the_character_for_what_cannot_be_read() -> None:
    handlers, _ = serving(done("ok"))
    view = await last(handlers, visitor(), Ask("x\ud83d \ud83d\ude00"))
    assert view.exchanges[0].asked == "x\ufffd \U0001f600"


async def test_a_failure_before_anything_ran_leaves_the_text_box_alone() -> None:
    handlers, _ = serving(done("ok"))
    view = handlers.broke(visitor())
    assert keys(view) == ["internal"] and view.draft is None


async def test_a_failure_in_the_middle_keeps_what_was_answered() -> None:
    handlers, _ = serving(
        Decided(NEGATIVE), TextDelta("once ", index=0), TextDelta("upon", index=1), DeadlineExceeded("late")
    )
    view = await last(handlers, visitor(), Ask("tell"))
    assert view.exchanges == (Exchange("tell", "once upon"),)
    assert view.latest.decision == NEGATIVE and view.draft is None


async def test_an_unforeseen_failure_leaves_a_page_that_works() -> None:
    handlers, _ = serving(ZeroDivisionError())
    session = visitor()
    with pytest.raises(ZeroDivisionError):
        await views(handlers, session, Ask("hello"))
    view = handlers.broke(session)
    assert keys(view) == ["internal"] and view.draft == "hello" and not view.is_running
    assert not session.is_running


async def test_stop_closes_the_stream_and_keeps_the_answer_so_far() -> None:
    handlers, service = serving(Decided(NEGATIVE), *tokens("once upon"), asyncio.Event())
    session = visitor()
    shown = []
    async with aclosing(handlers.submit(session, Ask("tell"))) as stream:
        async for view in stream:
            shown.append(view)
            if view.is_running and view.exchanges[-1].answer:
                assert service.num_open == 1
                assert handlers.stop(session) is None
    assert service.num_open == 0 and service.closed_early.is_set()
    assert keys(shown[-1]) == ["stopped"] and shown[-1].exchanges[-1].answer.startswith("once")
    assert not shown[-1].is_running and not session.is_running


async def test_stop_interrupts_a_wait() -> None:
    waiting = asyncio.Event()
    handlers, service = serving(waiting.set, asyncio.Event())
    session = visitor()
    request = asyncio.create_task(last(handlers, session, Ask("hello")))
    await waiting.wait()
    handlers.stop(session)
    assert keys(await request) == ["stopped"]
    assert service.num_open == 0


async def test_stop_with_nothing_running_repairs_a_page_that_shows_otherwise() -> None:
    handlers, _ = serving()
    session = visitor()
    session.view = View(is_running=True)
    view = handlers.stop(session)
    assert view is not None and not view.is_running


async def test_closing_the_views_closes_the_stream() -> None:
    handlers, service = serving(TextDelta("one", index=0), asyncio.Event())
    session = visitor()
    stream = handlers.submit(session, Ask("hello", "chat"))
    await anext(stream)
    await anext(stream)
    assert service.num_open == 1
    await stream.aclose()
    assert service.num_open == 0 and not session.is_running


async def test_a_second_submit_while_one_runs_changes_nothing_but_says_why() -> None:
    handlers, service = serving(TextDelta("one", index=0), asyncio.Event())
    session = visitor()
    async with aclosing(handlers.submit(session, Ask("first", "chat"))) as stream:
        running = await anext(stream)
        refused = await last(handlers, session, Ask("second", "chat"))
        assert keys(refused) == ["busy"] and refused.exchanges == running.exchanges and refused.draft is None
        assert refused.is_running
    assert len(service.requests) <= 1


async def test_new_conversation_ends_a_running_request_with_an_empty_page() -> None:
    handlers, service = serving(TextDelta("one", index=0), asyncio.Event())
    session = visitor()
    shown = []
    async for view in handlers.submit(session, Ask("hello", "chat")):
        shown.append(view)
        if view.exchanges and view.exchanges[-1].answer:
            assert handlers.begin_anew(session) is None
    assert shown[-1] == View() == session.view
    assert service.num_open == 0


async def test_new_conversation_empties_an_idle_page() -> None:
    handlers, _ = serving(*both("reply"))
    session = visitor()
    await views(handlers, session, Ask("hello"))
    assert handlers.begin_anew(session) == View() == session.view


async def test_two_visitors_do_not_mix() -> None:
    anna_waits, bert_may_end = asyncio.Event(), asyncio.Event()
    scripts: dict[str, list[Step]] = {
        "a": [TextDelta("to a", index=0), anna_waits.set, asyncio.Event()],
        "b": [TextDelta("to b", index=0), bert_may_end, done("reply to b")],
    }
    handlers = Handlers(FakeService(lambda request: scripts[request.text]), clock=FakeClock())
    anna, bert = visitor(), visitor()
    for_bert = asyncio.create_task(last(handlers, bert, Ask("b", "chat")))
    for_anna = asyncio.create_task(last(handlers, anna, Ask("a", "chat")))
    await anna_waits.wait()
    handlers.stop(anna)
    await for_anna
    bert_may_end.set()
    await for_bert
    assert keys(anna.view) == ["stopped"] and anna.view.exchanges == (Exchange("a", "to a"),)
    assert keys(bert.view) == [] and bert.view.exchanges == (Exchange("b", "reply to b"),)


async def test_nothing_is_sent_for_white_space() -> None:
    handlers, service = serving(*both("reply"))
    assert await views(handlers, visitor(), Ask(" \n\t")) == []
    assert service.requests == []


async def test_a_text_over_the_limit_is_refused_with_the_numbers() -> None:
    handlers, service = serving(*both("reply"))
    view = await last(handlers, visitor(), Ask("x" * (MAX_TEXT_CHARS + 1)))
    assert view.notices == (Notice("too_long", {"length": MAX_TEXT_CHARS + 1, "limit": MAX_TEXT_CHARS}, is_error=True),)
    assert service.requests == []


NEW_TAB = TabState()


async def opened(
    session: Session, *errors: QwenAioError, tab: TabState = NEW_TAB, accept_language: str = ""
) -> list[View]:
    handlers = Handlers(FakeService(lambda _: (), errors=errors), url="http://there:8000", retry_s=0)
    return [view async for view in handlers.open(session, tab, accept_language)]


async def test_the_page_opens_in_the_browsers_language_with_the_tasks_there_are() -> None:
    session = Session()
    assert await opened(session, accept_language="zh-CN,zh;q=0.9,en;q=0.8") == [View()]
    assert session.language == "zh" and session.tasks == TASKS


async def test_the_page_opens_before_the_model_and_waits_for_it() -> None:
    session = Session()
    shown = await opened(session, NotReady("loading"), NotReady("loading"))
    assert [keys(view) for view in shown] == [["not_ready"], ["not_ready"], []]
    assert session.tasks == TASKS


async def test_the_page_opens_without_a_service_and_goes_on_once_it_answers() -> None:
    session = Session()
    failures = (ServerUnreachable("no"), BadReply("half"), NoWorker("none"), HostRefused("who?"))
    shown = await opened(session, *failures)
    assert [keys(view) for view in shown] == [*([failure.code] for failure in failures), []]
    assert shown[0].notices[0].values["url"] == "http://there:8000"
    assert session.tasks == TASKS


async def test_a_page_that_waits_for_the_model_leaves_a_running_request_alone() -> None:
    session = visitor()
    session.view, session.is_known = View(is_running=True), True
    with session.running():
        assert all(view == View(is_running=True) for view in await opened(session, NotReady("loading")))


TALKED = TabState(language="zh", draft="half a sen", exchanges=(("hi", "hello"), ("and?", "fine")))


async def test_a_reloaded_tab_finds_its_conversation_its_draft_and_its_language() -> None:
    session = Session()
    waiting, view = await opened(session, NotReady("loading"), tab=TALKED, accept_language="en")
    assert view.exchanges == (Exchange("hi", "hello"), Exchange("and?", "fine"))
    assert (waiting.draft, view.draft) == ("half a sen", None)  # meanwhile the visitor types on
    assert session.language == "zh"


async def test_a_server_that_does_not_know_the_tab_goes_on_with_what_it_shows() -> None:
    handlers, service = serving(*both("well"))
    session = Session()
    await handlers.recognise(session, TALKED, "en")
    view = await last(handlers, session, Ask("so"))
    assert [message.content for message in service.requests[0].history] == ["hi", "hello", "and?", "fine"]
    assert len(view.exchanges) == 3 and session.tasks == TASKS and session.language == "zh"


async def test_a_server_that_knows_the_tab_believes_itself() -> None:
    handlers, _ = serving()
    session = Session()
    await opened(session)
    await handlers.recognise(session, TALKED, "en")
    assert session.view == View() and session.language == "en"
