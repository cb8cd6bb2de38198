"""What clients see while the balancer's workers fail in every way: real sockets, fake engines."""

import asyncio
import json
import logging
import re
from contextlib import aclosing
from dataclasses import replace

import aiohttp
import pytest

from qwen_aio.core import Request, SamplingWish
from qwen_aio.errors import AnswerBroken, InvalidRequest, NoWorker, PoisonRequest, QueueFull, QwenAioError
from qwen_aio.result import Decided, Done, Safety, TextDelta
from qwen_aio.wire.engine import engine_frame
from tests.balancer.balanced import HASTY, PATIENT, balanced
from tests.balancer.chaos import Fault
from tests.fakes import FakeEngine

PIECES = tuple("从前有一座山,山里有一座庙,庙里有一个老和尚。")
STORY = "".join(PIECES)
ERROR_500 = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
EMPTY_200 = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
GARBAGE = b"\x16\x03\x01garbage\r\n\r\n"


def event(name: str, fields: object) -> bytes:
    body = f"event: {name}\ndata: {json.dumps(fields)}\n\n".encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


NO_TOKEN = event(
    "answer",
    {
        "task": "chat",
        "text": "",
        "finish_reason": "stop",
        "worker": "a",
        "model": "m",
        "usage": {"prompt_tokens": 1, "cached_tokens": 0, "completion_tokens": 0},
        "timings": {"queue_ms": 0, "prefill_ms": 0, "decode_ms": 0, "total_ms": 0},
    },
)
ENDLESS = event("piece", {"text": "x" * 1_100_000, "token_ids": [1]})


def engines(*names: str) -> dict[str, FakeEngine]:
    return {name: FakeEngine(pieces=PIECES) for name in names}


async def read(service, request: Request) -> tuple[str, Done]:
    """The streamed text and the end; tokens are numbered without a gap."""
    tokens: list[TextDelta] = []
    async with aclosing(service.client.stream(request)) as events:
        async for found in events:
            if isinstance(found, TextDelta):
                tokens.append(found)
            last = found
    assert [token.index for token in tokens] == list(range(len(tokens)))
    assert isinstance(last, Done)
    return "".join(token.text for token in tokens), last


async def test_an_answer_names_the_worker_that_gave_it(tmp_path):
    async with balanced(engines("a", "b"), tmp_path) as service:
        text, done = await read(service, Request("你好", request_id="r1"))
        row = service.rows()[-1]
        assert text == done.result.answer.text == STORY
        assert done.result.answer.worker == row.worker in ("a", "b")
        assert (row.id, row.task, row.outcome, row.attempts) == ("r1", "chat", "ok", 1)
        assert row.tokens == len(PIECES)
        service.assert_quiet()


@pytest.mark.parametrize("mode", ["auto", "chat", "sentiment"])
async def test_self_harm_is_answered_by_the_word_rule_of_the_workers_safety_task(tmp_path, mode):
    workers = engines("a")
    async with balanced(workers, tmp_path) as service:
        text, done = await read(service, Request("我不想活了,质量太差", mode=mode, reply=True))
        answer = done.result.answer
        assert (answer.text, answer.finish_reason) == (text, "fixed")
        assert answer.safety == Safety("crisis", None, "words")
        assert "12356" in text
        assert done.result.route == ("rule safety.crisis: 不想活" if mode == "auto" else f"mode {mode}")
        assert workers["a"].samplings == []


async def test_a_decision_and_its_reply_are_two_rows_of_one_request(tmp_path):
    async with balanced(engines("a", "b"), tmp_path) as service:
        async with aclosing(service.client.stream(Request("太失望了", reply=True, request_id="both"))) as events:
            kinds = [type(found) async for found in events]
        assert kinds[0] is Decided
        rows = service.rows()
        assert [(row.id, row.task, row.outcome) for row in rows] == [
            ("both", "sentiment", "ok"),
            ("both", "chat", "ok"),
        ]
        prompts = [prompt for engine in service.engines.values() for prompt in engine.prompts]
        assert any("负面" in getattr(segment, "text", "") for prompt in prompts for segment in prompt.body)
        service.assert_quiet()


async def test_the_time_in_the_queue_is_reported(tmp_path):
    gate = asyncio.Event()
    engine = FakeEngine(gate=gate)
    async with balanced({"a": engine}, tmp_path) as service:
        first = [asyncio.create_task(service.client.run(Request("hi", mode="sentiment"))) for _ in range(8)]
        await service.until(lambda: service.row("a").in_flight == 8)
        ninth = asyncio.create_task(service.client.run(Request("hi", mode="sentiment", request_id="ninth")))
        await service.until(lambda: service.balancer.snapshot().waiting == 1)
        gate.set()
        result = await ninth
        await asyncio.gather(*first)
        row = next(row for row in service.rows() if row.id == "ninth")
        assert row.queue_ms > 0
        assert result.decision.timings.queue_ms == pytest.approx(row.queue_ms + 1.0, abs=0.2)  # 1.0 in the worker
        service.assert_quiet()


@pytest.mark.parametrize("reset_after", [0, 1, 150, 250, 400, 700, 1000, 1500, 2000, 2500])
async def test_a_stream_that_breaks_anywhere_goes_on_elsewhere_without_gap_or_repeat(tmp_path, reset_after):
    async with balanced(engines("a", "b"), tmp_path) as service:
        for path in service.paths.values():
            path.fault = Fault(reset_after=reset_after, times=1)
        text, done = await read(service, Request("讲个故事", mode="chat"))
        assert text == done.result.answer.text == STORY
        assert done.result.answer.usage.completion_tokens == len(PIECES)
        service.assert_quiet()


async def test_a_stream_in_single_bytes_is_the_same_stream(tmp_path):
    async with balanced(engines("a"), tmp_path) as service:
        service.paths["a"].fault = Fault(is_sliced=True)
        text, _ = await read(service, Request("讲个故事", mode="chat"))
        assert text == STORY


@pytest.mark.parametrize("reply", [ERROR_500, EMPTY_200, GARBAGE, NO_TOKEN, ENDLESS], ids=lambda reply: reply[:20])
async def test_whatever_a_broken_worker_says_no_client_hears_it(tmp_path, reply):
    async with balanced(engines("bad", "good"), tmp_path) as service:
        service.paths["bad"].fault = Fault(reply=reply)
        for _ in range(20):
            text, _ = await read(service, Request("讲个故事", mode="chat"))
            assert text == STORY
        assert service.paths["bad"].calls <= 8  # it fails at once, so it is always free: failures must cost
        service.assert_quiet()


async def test_a_silent_worker_loses_its_requests(tmp_path):
    async with balanced(engines("mute", "good"), tmp_path, params=HASTY) as service:
        service.paths["mute"].fault = Fault(hang_after=300)
        texts = await asyncio.gather(*(read(service, Request("讲个故事", mode="chat")) for _ in range(4)))
        assert {text for text, _ in texts} == {STORY}
        service.assert_quiet()


async def test_a_worker_that_dies_is_left_at_once_and_found_again_when_it_is_back(tmp_path):
    async with balanced(engines("a", "b"), tmp_path) as service:
        service.paths["a"].kill()
        texts = await asyncio.gather(*(read(service, Request("讲个故事", mode="chat")) for _ in range(6)))
        assert {text for text, _ in texts} == {STORY}
        await service.until(lambda: service.row("a").health == "down")
        assert service.balancer.snapshot().state == "degraded"
        await service.paths["a"].revive()
        await service.until_ready(2)
        assert service.balancer.snapshot().state == "ok"
        service.assert_quiet()


async def test_a_clients_mistake_goes_to_the_client(tmp_path):
    async with balanced(engines("a", "b"), tmp_path) as service:
        with pytest.raises(InvalidRequest, match="max_tokens"):
            await service.client.run(Request("hi", mode="chat", sampling=SamplingWish(max_tokens=4000)))
        assert [row.breaker for row in service.balancer.snapshot().workers] == ["closed", "closed"]
        assert sum(path.calls for path in service.paths.values()) <= 1


async def test_a_mistake_that_only_the_worker_sees_is_not_tried_again(tmp_path):
    async with balanced(engines("a", "b"), tmp_path) as service:
        for engine in service.engines.values():
            engine.error = InvalidRequest("odd")
        for _ in range(10):
            with pytest.raises(InvalidRequest, match="odd"):
                await service.client.run(Request("hi", mode="sentiment"))
        assert sum(path.calls for path in service.paths.values()) == 10
        assert {row.outcome for row in service.rows()} == {"refused"}
        assert [row.breaker for row in service.balancer.snapshot().workers] == ["closed", "closed"]


async def test_a_request_that_kills_two_workers_is_not_sent_to_a_third(tmp_path):
    gate = asyncio.Event()
    async with balanced({name: FakeEngine(gate=gate, pieces=PIECES) for name in "abc"}, tmp_path) as service:
        poison = asyncio.create_task(service.client.run(Request("讲个故事", mode="chat")))
        for _ in range(2):
            await service.until(lambda: any(row.in_flight for row in service.balancer.snapshot().workers))
            victim = next(row.id for row in service.balancer.snapshot().workers if row.in_flight)
            await service.until(lambda victim=victim: service.engines[victim].open_streams)
            service.paths[victim].kill()
            await service.until(lambda victim=victim: service.row(victim).in_flight == 0)
        with pytest.raises(PoisonRequest):
            await poison
        gate.set()
        assert service.balancer.snapshot().ready == 1


async def test_a_broken_answer_that_no_worker_can_resume_ends_with_an_error(tmp_path):
    gate = asyncio.Event()
    async with balanced({"only": FakeEngine(gate=gate, pieces=PIECES)}, tmp_path) as service:
        async with aclosing(service.client.stream(Request("讲个故事", mode="chat"))) as events:
            assert isinstance(await anext(events), TextDelta)
            service.paths["only"].kill()
            with pytest.raises(AnswerBroken):
                await anext(events)
        gate.set()


async def test_a_broken_answer_waits_a_while_for_its_only_worker(tmp_path):
    gate = asyncio.Event()
    patient = replace(PATIENT, no_worker_grace_s=30.0)
    async with balanced({"only": FakeEngine(gate=gate, pieces=PIECES)}, tmp_path, params=patient) as service:
        async with aclosing(service.client.stream(Request("讲个故事", mode="chat"))) as events:
            parts = [(await anext(events)).text]
            service.paths["only"].kill()
            await service.until(lambda: service.row("only").health == "down")
            gate.set()
            await service.paths["only"].revive()
            parts += [found.text async for found in events if isinstance(found, TextDelta)]
        assert "".join(parts) == STORY


async def test_without_any_worker_clients_learn_at_once_how_to_start_one(tmp_path):
    async with balanced({}, tmp_path) as service:
        with pytest.raises(NoWorker, match=r"app\.py --mode worker") as caught:
            await service.client.run(Request("hi"))
        assert caught.value.retry_after_s >= 1


async def test_when_all_workers_fail_retries_do_not_multiply_the_load(tmp_path):
    async with balanced(engines("a", "b", "c"), tmp_path) as service:
        for path in service.paths.values():
            path.fault = Fault(reply=ERROR_500)

        async def ask() -> None:
            with pytest.raises(QwenAioError):
                await service.client.run(Request("hi", mode="sentiment", timeout_s=0.5))

        await asyncio.gather(*(ask() for _ in range(60)))
        assert sum(path.calls for path in service.paths.values()) <= 60 * 1.2 + 20 + 3
        service.assert_quiet()


async def test_a_client_that_hangs_up_in_any_phase_frees_everything(tmp_path):
    gate = asyncio.Event()
    async with balanced({name: FakeEngine(gate=gate, pieces=PIECES) for name in "ab"}, tmp_path) as service:
        asking = [asyncio.create_task(service.client.run(Request("hi", mode="chat"))) for _ in range(40)]
        await service.until(lambda: service.balancer.snapshot().waiting >= 20)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        await service.until(lambda: service.balancer.snapshot().in_flight == 0)
        await service.until(lambda: all(engine.open_streams == 0 for engine in service.engines.values()))
        await service.until(lambda: service.gate.in_flight == 0)
        service.assert_quiet()


async def test_a_full_queue_says_when_to_come_back_and_takes_requests_that_lost_a_worker(tmp_path):
    gate = asyncio.Event()
    held = {name: FakeEngine(gate=gate, pieces=PIECES) for name in "ab"}
    async with balanced(held, tmp_path, max_queue=3) as service:
        asking = [asyncio.create_task(read(service, Request("hi", mode="chat"))) for _ in range(15)]
        await service.until(lambda: service.balancer.snapshot().waiting == 3)
        with pytest.raises(QueueFull, match="3 requests wait") as refusal:
            await service.client.run(Request("hi", mode="chat"))
        assert 1 <= refusal.value.retry_after_s <= 60
        service.paths["a"].kill()
        await service.until(lambda: service.balancer.snapshot().waiting == 9)
        gate.set()
        assert {text for text, _ in await asyncio.gather(*asking)} == {STORY}
        service.assert_quiet()


async def test_two_bursts_of_a_hundred_are_all_answered_and_spread(tmp_path):
    async with balanced(engines("a", "b", "c"), tmp_path) as service:
        for _ in range(2):
            results = await asyncio.gather(
                *(service.client.run(Request("hi", mode=("chat", "sentiment")[i % 2])) for i in range(100))
            )
            assert len(results) == 100
        shares = [path.calls for path in service.paths.values()]
        assert sum(shares) == 200
        assert min(shares) >= 20
        service.assert_quiet()


async def test_a_worker_taken_offline_gets_nothing_and_finishes_what_it_has(tmp_path):
    gate = asyncio.Event()
    async with balanced({name: FakeEngine(gate=gate, pieces=PIECES) for name in "ab"}, tmp_path) as service:
        asking = [asyncio.create_task(read(service, Request("hi", mode="chat"))) for _ in range(20)]
        await service.until(lambda: service.paths["a"].calls == service.paths["b"].calls == 6)
        calls = service.paths["a"].calls
        service.balancer.set_admin("a", "maint", force=False)
        gate.set()
        assert {text for text, _ in await asyncio.gather(*asking)} == {STORY}
        assert service.paths["a"].calls == calls
        service.balancer.set_admin("a", "ready", force=False)
        await asyncio.gather(*(read(service, Request("hi", mode="chat")) for _ in range(10)))
        assert service.paths["a"].calls > calls
        service.assert_quiet()


async def test_taking_a_worker_offline_moves_what_waits_on_it_at_once(tmp_path):
    stuck = FakeEngine(gate=asyncio.Event())
    async with balanced({"stuck": stuck}, tmp_path) as service:
        waiting = asyncio.create_task(service.client.run(Request("hi", mode="sentiment")))
        await service.until(lambda: stuck.prompts)
        service.balancer.set_admin("stuck", "maint", force=True)
        await service.until(lambda: stuck.cancelled == 1)
        service.balancer.set_admin("stuck", "ready", force=False)
        stuck.gate.set()
        assert (await waiting).decision.worker == "stuck"  # no other worker was there: it came back
        assert service.row("stuck").breaker == "closed"
        service.assert_quiet()


async def test_an_answer_that_lost_its_worker_after_the_last_token_is_whole(tmp_path):
    async with balanced(engines("a", "b"), tmp_path) as service:
        whole = await read(service, Request("讲个故事", mode="chat"))
        sent = len(b"".join(engine_frame(TextDelta(piece, (n,))) for n, piece in enumerate(PIECES)))
        for cut in range(sent + 150, sent + 500, 25):  # after the last delta, in the middle of the answer's own event
            for path in service.paths.values():
                path.fault = Fault(reset_after=cut, times=1)
            assert (await read(service, Request("讲个故事", mode="chat")))[0] == whole[0]
        service.assert_quiet()


async def test_a_list_of_texts_is_spread_over_workers_and_answered_in_order(tmp_path):
    async with balanced(engines("a", "b"), tmp_path) as service, aiohttp.ClientSession() as session:
        body = {"texts": ["好", "坏", "一般"], "mode": "sentiment"}
        async with session.post(f"{service.url}/v1/run", json=body) as response:
            results = (await response.json())["results"]
        assert len(results) == 3
        assert {result["worker"] for result in results} <= {"a", "b"}


@pytest.mark.parametrize(
    ("sent", "logged"),
    [
        (
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ),
        ("00-SECRET-00f067aa0ba902b7-01", "-"),
    ],
)
async def test_a_sound_traceparent_reaches_the_log_of_balancer_and_worker(tmp_path, caplog, sent, logged):
    caplog.set_level(logging.INFO, logger="qwen_aio")
    async with balanced(engines("a"), tmp_path) as service, aiohttp.ClientSession() as session:
        headers = {"traceparent": sent, "X-Request-ID": "r1"}
        body = {"text": "差评", "mode": "sentiment", "reply": True}
        async with session.post(f"{service.url}/v1/run", json=body, headers=headers) as response:
            assert response.status == 200
    lines = re.findall(r"(engine request|request done) id=r1 task=(\w+) .*?traceparent=(\S+)", caplog.text)
    assert lines == [
        ("engine request", "sentiment", logged),
        ("engine request", "chat", logged),
        ("request done", "sentiment", logged),
    ]
    assert "SECRET" not in caplog.text


async def test_health_tells_ok_degraded_and_none(tmp_path):
    async with balanced(engines("a", "b"), tmp_path) as service, aiohttp.ClientSession() as session:

        async def health() -> tuple[int, str]:
            async with session.get(f"{service.url}/health") as response:
                return response.status, (await response.json())["state"]

        assert await health() == (200, "ok")
        service.paths["a"].kill()
        await service.until(lambda: service.balancer.snapshot().ready == 1)
        assert await health() == (200, "degraded")
        service.paths["b"].kill()
        await service.until(lambda: service.balancer.snapshot().ready == 0)
        assert await health() == (503, "unavailable")
        async with session.get(f"{service.url}/readyz") as response:
            assert response.status == 503
            assert int(response.headers["Retry-After"]) >= 1
            told = await response.text()
            assert '"no_worker"' in told and "worker" not in json.loads(told)["error"]["message"]


# ---- tokens ----


async def test_tokens_come_from_a_worker_that_can_tell(tmp_path):
    async with balanced(engines("a", "b"), tmp_path) as service, aiohttp.ClientSession(service.url) as client:
        body = {"messages": [{"role": "user", "content": "hi"}]}
        await client.post("/v1/chat/completions", json=body)
        [prompt] = [prompt for engine in service.engines.values() for prompt in engine.prompts]
        expected = await FakeEngine().tokenize(prompt)
        service.paths["a"].kill()
        async with client.post("/tokenize", json=body) as reply:
            assert await reply.json() == {"count": len(expected), "max_model_len": 2048, "tokens": expected}
        async with client.post("/tokenize", json={"prompt": ""}) as reply:
            assert reply.status == 400
        service.paths["b"].kill()
        async with client.post("/tokenize", json=body) as reply:
            assert reply.status == 503
            assert (await reply.json())["error"]["code"] == "no_worker"
        service.assert_quiet()
