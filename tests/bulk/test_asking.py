"""Rows asked about many at once: in their order, one fault costs one row, passing errors are waited for."""

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_aio.bounds import MAX_TIMEOUT_S
from qwen_aio.bulk.asking import AT_ONCE, PATIENCE_S, Asker, Patient
from qwen_aio.bulk.table import open_table
from qwen_aio.core import Request
from qwen_aio.errors import (
    InvalidRequest,
    KeyRefused,
    NoWorker,
    QueueFull,
    RateLimited,
    RequestFailed,
    ServerUnreachable,
)
from qwen_aio.result import Result

ASK = Request("-", mode="sentiment", request_id="classify")


class Script:
    """Answers each text with itself as the route, after the errors that are written down for it."""

    def __init__(self, **errors) -> None:
        self.errors = {text: list(of_text) for text, of_text in errors.items()}
        self.requests: list[Request] = []
        self.running = self.most_running = 0
        self.delays: dict[str, int] = {}  # turns of the loop

    async def run(self, request):
        self.requests.append(request)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            for _ in range(self.delays.get(request.text, 1)):
                await asyncio.sleep(0)
            if self.errors.get(request.text):
                raise self.errors[request.text].pop(0)
            return Result("id", request.mode, request.text, "hash", "model", "worker")
        finally:
            self.running -= 1

    async def capabilities(self):
        raise AssertionError("not asked for")


class Pauses:
    """Waits for nothing and remembers how long that would have been."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds):
        self.seconds.append(seconds)
        await asyncio.sleep(0)


def table_of(folder, texts):
    path = folder / "rows.csv"
    path.write_text("text\n" + "".join(f'"{text}"\n' for text in texts), encoding="utf-8")
    return open_table(path)


async def asked(script, table, pauses=None):
    asker = Asker(Patient(script, pause=pauses or Pauses()), ASK, table, "text")
    return [labelled async for labelled in asker.labelled(table.rows())]


@given(delays=st.lists(st.integers(0, 9), min_size=1, max_size=3 * AT_ONCE))
def test_rows_come_out_in_their_order_and_never_more_at_once(tmp_path_factory, delays):
    texts = [f"t{number}" for number in range(len(delays))]
    script = Script()
    script.delays = dict(zip(texts, delays, strict=True))
    found = asyncio.run(asked(script, table_of(tmp_path_factory.mktemp("rows"), texts)))
    assert [labelled.result.route for labelled in found] == texts
    assert script.most_running <= AT_ONCE
    assert script.requests[0] == replace(ASK, text=script.requests[0].text, timeout_s=MAX_TIMEOUT_S)


async def test_a_fault_costs_its_row_alone(tmp_path):
    script = Script(long=[InvalidRequest("too long")], odd=[RequestFailed("no luck")])
    found = await asked(script, table_of(tmp_path, ["a", "long", " ", "odd", "b"]))
    assert [labelled.result and labelled.result.route for labelled in found] == ["a", None, None, None, "b"]
    assert [labelled.fault and labelled.fault.split(";")[0] for labelled in found] == [
        None,
        "too long",
        "the text has nothing visible in it",
        "no luck",
        None,
    ]


async def test_a_busy_server_is_asked_again_when_it_says(tmp_path):
    pauses = Pauses()
    script = Script(a=[QueueFull("full", retry_after_s=7), NoWorker("none")])
    [found] = await asked(script, table_of(tmp_path, ["a"]), pauses)
    assert found.result is not None
    assert pauses.seconds == [7.0, 1.0]


async def test_a_server_that_answers_slowly_is_waited_for_as_long_as_it_answers(tmp_path):
    """As one with a limit of requests a minute: the rows at the end of the line wait longer than PATIENCE_S in all."""
    texts = [f"t{number}" for number in range(20)]
    pauses = Pauses()
    script = Script(**{text: [RateLimited("slow", retry_after_s=60)] * number for number, text in enumerate(texts)})
    found = await asked(script, table_of(tmp_path, texts), pauses)
    assert [labelled.fault for labelled in found] == [None] * 20
    assert max(pauses.seconds) * 19 > PATIENCE_S


async def test_a_server_that_stays_away_ends_the_run(tmp_path):
    pauses = Pauses()
    script = Script(b=[ServerUnreachable("away")] * 500)
    with pytest.raises(ServerUnreachable):
        await asked(script, table_of(tmp_path, ["b"]), pauses)
    assert sum(pauses.seconds) <= PATIENCE_S
    assert script.running == 0


async def test_a_row_that_never_gets_its_turn_ends_the_run_once_nothing_else_is_answered(tmp_path):
    pauses = Pauses()
    script = Script(b=[NoWorker("none")] * 500)
    with pytest.raises(NoWorker):
        await asked(script, table_of(tmp_path, ["a", "b", *(f"t{number}" for number in range(200))]), pauses)
    assert PATIENCE_S <= sum(pauses.seconds) < 2 * PATIENCE_S
    assert script.running == 0


async def test_what_no_row_is_to_blame_for_ends_the_run_and_what_is_under_way(tmp_path):
    script = Script(a=[KeyRefused("no key")])
    script.delays = {f"t{number}": 10**6 for number in range(200)}
    with pytest.raises(KeyRefused):
        await asked(script, table_of(tmp_path, ["a", *script.delays]))
    assert script.running == 0


async def test_a_row_of_a_slow_model_may_wait_behind_the_others_as_long_as_any_request_may():
    script = Script()
    await Patient(script).run(ASK)
    await Patient(script).run(replace(ASK, timeout_s=5.0))
    assert [request.timeout_s for request in script.requests] == [MAX_TIMEOUT_S, 5.0]
