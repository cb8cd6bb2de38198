import asyncio
import json
import logging

import httpx
import pytest
from starlette.requests import Request as HttpRequest
from starlette.responses import PlainTextResponse
from starlette.routing import Mount

from qwen_aio.errors import DeadlineExceeded, EngineStopped, QueueFull
from qwen_aio.result import Answer, Decision
from qwen_aio.serving.admission import PARALLEL_TEXTS
from qwen_aio.serving.sse import StreamTimes
from tests.asking import calling, check_refusal, sse
from tests.fakes import FakeEngine, user_text
from tests.served import TASKS, WatchedEngine, Worker, served
from tests.test_wire import BROKEN, OUT_OF_RANGE, with_field

STORY = "刚收到货,包装完好,但颜色和图片不太一样,有点小失望"


# ---- answers ----


async def test_the_published_story_over_http():
    worker = Worker(FakeEngine(pieces=("抱歉", "。")))
    async with calling(worker) as client:
        response = await client.post("/v1/run", json={"text": STORY, "reply": True}, headers={"X-Request-ID": "mine-1"})
    fields = response.json()
    assert response.status_code == 200
    assert (fields["request_id"], response.headers["x-request-id"]) == ("mine-1", "mine-1")
    assert (fields["mode"], fields["label"], fields["confidence"]) == ("sentiment", "negative", "高")
    assert fields["reply"]["text"] == "抱歉。"
    assert fields["merged"] == '【😔 LLM 情感判断:负面|高置信】→ "抱歉。"'
    assert fields["route"] == "rule sentiment.words: 失望"


async def test_every_engine_request_is_recorded_for_health():
    worker = Worker(FakeEngine())
    async with calling(worker) as client:
        await client.post("/v1/run", json={"text": STORY, "reply": True})
        await client.post("/v1/run", json={"text": "我不想活了"})  # a fixed reply costs nothing
    assert [type(outcome) for _, outcome in worker.recorded] == [Decision, Answer]
    assert [outcome.timings.prefill_ms for _, outcome in worker.recorded] == [80.0, 50.0]


async def test_a_stream_is_decision_tokens_done():
    async with calling(Worker(FakeEngine(pieces=("抱", "歉")))) as client:
        response = await client.post("/v1/run", json={"text": STORY, "reply": True, "stream": True})
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-store"
    events = sse(response.text)
    assert [name for name, _ in events] == ["decision", "token", "token", "done"]
    assert [data for name, data in events if name == "token"] == [
        {"index": 0, "text": "抱"},
        {"index": 1, "text": "歉"},
    ]
    assert events[-1][1]["finish_reason"] == "stop"
    assert events[-1][1]["reply"]["text"] == "抱歉"


async def test_texts_are_answered_in_order():
    texts = [f"第{number}个,失望" for number in range(20)]
    async with calling(Worker(FakeEngine())) as client:
        response = await client.post("/v1/run", json={"texts": texts, "mode": "sentiment"})
    assert [result["label"] for result in response.json()["results"]] == ["negative"] * 20


async def test_only_a_few_of_many_texts_run_at_once():
    release = asyncio.Event()
    engine = WatchedEngine(gate=release)
    worker = Worker(engine)
    async with calling(worker) as client:
        sending = asyncio.create_task(client.post("/v1/run", json={"texts": ["失望"] * 30}))
        await engine.begun.wait()
        assert (len(engine.call_ids), worker.gate.in_flight) == (PARALLEL_TEXTS, 1)
        release.set()
        assert len((await sending).json()["results"]) == 30


async def test_one_failing_text_fails_the_list_and_frees_the_rest():
    class SecondFails(FakeEngine):
        async def score(self, request_id, prompt, continuations):
            if user_text(prompt) == "b":
                raise QueueFull("full")
            return await super().score(request_id, prompt, continuations)

    engine = SecondFails(gate=asyncio.Event())
    worker = Worker(engine)
    async with calling(worker) as client:
        response = await client.post("/v1/run", json={"texts": ["a", "b", "c"], "mode": "sentiment"})
    check_refusal(response, 503, "queue_full")
    assert worker.gate.in_flight == 0
    assert engine.cancelled == 2


async def test_each_task_has_its_own_result_or_error():
    worker = Worker(FakeEngine())
    async with calling(worker) as client:
        response = await client.post(
            "/v1/run", json={"text": "太慢了,失望", "tasks": ["sentiment", "nothing", "safety"]}
        )
    body = response.json()
    assert response.status_code == 200
    assert list(body["results"]) == ["sentiment", "nothing", "safety"]
    sentiment, unknown, safety = body["results"].values()
    assert (sentiment["label"], sentiment["mode"]) == ("negative", "sentiment")
    assert unknown["error"]["code"] == "unknown_task"
    assert safety["mode"] == "safety"
    assert all(result["timings"]["total_ms"] >= 0 for result in (sentiment, safety))
    assert body["merged"] == f"{sentiment['merged']} {safety['merged']}"
    assert worker.gate.in_flight == 0


async def test_tasks_run_side_by_side_and_end_with_their_client():
    engine = WatchedEngine(gate=asyncio.Event())
    worker = Worker(engine)
    async with calling(worker) as client:
        sending = asyncio.create_task(client.post("/v1/run", json={"text": "失望", "tasks": ["sentiment", "safety"]}))
        await engine.begun.wait()
        assert (len(engine.call_ids), worker.gate.in_flight) == (2, 1)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
    assert worker.gate.in_flight == 0


async def test_every_task_that_the_deadline_ends_says_so():
    worker = Worker(FakeEngine(gate=asyncio.Event()))
    async with calling(worker) as client:
        body = {"text": "失望", "tasks": ["sentiment", "safety"], "timeout_s": 0.05}
        results = (await client.post("/v1/run", json=body)).json()["results"]
    assert [result["error"]["code"] for result in results.values()] == ["deadline_exceeded"] * 2
    assert worker.gate.in_flight == 0


@pytest.mark.parametrize("body", [{"text": "a"}, {"texts": ["a", "b"]}], ids=["text", "texts"])
async def test_a_deadline_ends_the_work(body):
    engine = FakeEngine(gate=asyncio.Event())
    worker = Worker(engine)
    async with calling(worker) as client:
        response = await client.post("/v1/run", json=body | {"mode": "sentiment", "timeout_s": 0.01})
    check_refusal(response, 504, "deadline_exceeded")
    assert worker.gate.in_flight == 0
    assert engine.cancelled >= 1


async def test_a_deadline_can_be_a_header_and_the_body_wins():
    async with calling(Worker(FakeEngine(gate=asyncio.Event()))) as client:
        late = await client.post("/v1/run", json={"text": STORY}, headers={"X-Request-Timeout": "0.01"})
        check_refusal(late, 504, "deadline_exceeded")
        header = {"X-Request-Timeout": "600"}
        late = await client.post("/v1/run", json={"text": STORY, "timeout_s": 0.01}, headers=header)
        check_refusal(late, 504, "deadline_exceeded")
        for value in ("soon", "nan", "-1", "1e9"):
            wrong = await client.post("/v1/run", json={"text": "a"}, headers={"X-Request-Timeout": value})
            assert check_refusal(wrong, 400, "invalid_request")["param"] == "timeout_s"


async def test_no_text_of_a_user_is_logged(caplog):
    caplog.set_level(logging.DEBUG, logger="qwen_aio")
    async with calling(Worker(FakeEngine(pieces=("ANSWER",)))) as client:
        await client.post("/v1/run", json={"text": "SECRET", "mode": "chat"}, headers={"X-Request-ID": "r-1"})
        await client.post("/v1/run", json={"text": "SECRET", "mode": "SECRET"})
    assert "SECRET" not in caplog.text and "ANSWER" not in caplog.text
    assert "request done id=r-1 task=chat tokens=1 ms=" in caplog.text


# ---- refusals ----


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN.keys())
async def test_a_broken_body_is_refused(body):
    engine = FakeEngine()
    async with calling(Worker(engine)) as client:
        response = await client.post("/v1/run", content=body, headers={"Content-Type": "application/json"})
    check_refusal(response, 400, "invalid_request")
    assert engine.call_ids == []


@pytest.mark.parametrize("body", [with_field(name, values[0]) for name, values in OUT_OF_RANGE])
async def test_a_field_out_of_range_is_refused(body):
    engine = FakeEngine()
    async with calling(Worker(engine)) as client:
        response = await client.post("/v1/run", content=body, headers={"Content-Type": "application/json"})
    assert check_refusal(response, 400, "invalid_request")["param"]
    assert engine.call_ids == []


@pytest.mark.parametrize("text", ["", " \n\t", "\u3000"])
async def test_an_empty_text_is_refused(text):
    async with calling(Worker(FakeEngine())) as client:
        assert (
            check_refusal(await client.post("/v1/run", json={"text": text}), 400, "invalid_request")["param"] == "text"
        )


@pytest.mark.parametrize("stream", [False, True])
async def test_an_unknown_task_is_404(stream):
    async with calling(Worker(FakeEngine())) as client:
        response = await client.post("/v1/run", json={"text": "a", "mode": "po\r\n\x1b[31m", "stream": stream})
    assert check_refusal(response, 404, "unknown_task")["message"].isprintable()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("error", "status"),
    [(QueueFull("full", retry_after_s=3), 503), (EngineStopped("gone"), 503), (DeadlineExceeded("late"), 504)],
    ids=lambda value: getattr(value, "code", None),
)
async def test_a_failure_before_the_first_event_is_a_status(stream, error, status):
    async with calling(Worker(FakeEngine(error=error))) as client:
        response = await client.post("/v1/run", json={"text": STORY, "stream": stream})
    check_refusal(response, status, error.code)


async def test_a_failure_after_the_first_event_is_the_last_event():
    engine = FakeEngine(pieces=("a", "b"), error=EngineStopped("gone"), error_after=1)
    async with calling(Worker(engine)) as client:
        response = await client.post("/v1/run", json={"text": "hi", "mode": "chat", "stream": True})
    events = sse(response.text)
    assert [name for name, _ in events] == ["token", "error"]
    assert events[-1][1]["error"]["code"] == "engine_stopped"
    assert events[-1][1]["error"]["request_id"] == response.headers["x-request-id"]


async def test_a_bug_of_ours_does_not_end_a_stream_in_silence():
    engine = FakeEngine(pieces=("a", "b"), error=ZeroDivisionError("SECRET"), error_after=1)
    worker = Worker(engine)
    async with calling(worker) as client:
        response = await client.post("/v1/run", json={"text": "hi", "mode": "chat", "stream": True})
    events = sse(response.text)
    assert [name for name, _ in events] == ["token", "error"]
    assert events[-1][1]["error"]["code"] == "internal"
    assert b"SECRET" not in response.content
    assert worker.gate.in_flight == engine.open_streams == 0


async def test_a_bug_of_ours_is_a_sentence():
    class Buggy(FakeEngine):
        async def score(self, request_id, prompt, continuations):
            raise ZeroDivisionError("SECRET")

    worker = Worker(Buggy())
    async with calling(worker) as client:
        response = await client.post("/v1/run", json={"text": STORY})
    check_refusal(response, 500, "internal")
    assert b"SECRET" not in response.content
    assert worker.gate.in_flight == 0


@pytest.mark.parametrize(
    "path",
    ["/", "/v1", "/v1/", "/v1/run/", "/v1/runs", "/docs/", "/redoc", "/metrics/", "/CON", "/%00"],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_unknown_path_is_404(path, method):
    async with calling(Worker(FakeEngine())) as client:
        check_refusal(await client.request(method, path), 404, "unknown_path")


@pytest.mark.parametrize(
    "path", ["/v1/../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/..\\..\\x", "//etc/passwd", "/v1/%2e%2e/run"]
)
async def test_no_path_leads_to_a_file(path):
    worker = Worker(FakeEngine())
    transport = httpx.ASGITransport(worker.app)
    request = httpx.Request("GET", httpx.URL("http://localhost", raw_path=path.encode()))
    response = await transport.handle_async_request(request)
    assert response.status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/v1/run", "POST"),
        ("PUT", "/v1/run", "POST"),
        ("DELETE", "/v1/run", "POST"),
        ("OPTIONS", "/v1/run", "POST"),
    ]
    + [("POST", path, "GET, HEAD") for path in ("/v1/tasks", "/health", "/readyz", "/livez")],
)
async def test_a_wrong_method_gets_the_right_one(method, path, allow):
    async with calling(Worker(FakeEngine())) as client:
        response = await client.request(method, path, headers={"Origin": "http://localhost"})
    check_refusal(response, 405, "method_not_allowed")
    assert response.headers["allow"] == allow
    assert not [name for name in response.headers if name.startswith("access-control")]


async def test_a_page_mounted_at_the_root_does_not_answer_for_the_api():
    async def page(request: HttpRequest) -> PlainTextResponse:
        return PlainTextResponse("page")

    async def mounted(scope, receive, send):
        await PlainTextResponse("page")(scope, receive, send)

    worker = Worker(FakeEngine())
    worker.app.router.routes.append(Mount("/", mounted))
    async with calling(worker) as client:
        assert (await client.get("/")).text == "page"
        assert (await client.get("/anything")).text == "page"
        check_refusal(await client.get("/v1/run"), 405, "method_not_allowed")
        check_refusal(await client.get("/v1/other"), 404, "unknown_path")
        check_refusal(await client.post("/health"), 405, "method_not_allowed")
        assert (await client.get("/health")).json()["id"] == "qwen-1"
        assert check_refusal(await client.get("/", headers={"Host": "evil.com"}), 400, "host_refused")


# ---- what can be read ----


async def test_tasks_are_listed_with_their_limits():
    async with calling(Worker(FakeEngine())) as client:
        fields = (await client.get("/v1/tasks")).json()
    assert [task["name"] for task in fields["tasks"]] == sorted(TASKS)
    sentiment = next(task for task in fields["tasks"] if task["name"] == "sentiment")
    assert [label["text"] for label in sentiment["labels"]] == ["正面", "中性", "负面"]
    assert sentiment["limits"] == {"timeout_s": 60.0, "max_tokens": None}
    assert fields["limits"]["context_tokens"] == 2048


async def test_health_is_the_record_of_the_status_file_and_more():
    worker = Worker(FakeEngine())
    async with calling(worker) as client:
        response = await client.get("/health")
        assert (await client.get("/readyz")).json() == {"status": "ready"}
        assert (await client.head("/health")).content == b""
    fields = response.json()
    assert response.status_code == 200
    assert (fields["id"], fields["state"], fields["golden"], fields["in_flight"]) == (
        "qwen-1",
        "ready",
        {"sentiment": "ok"},
        0,
    )


@pytest.mark.parametrize(
    ("change", "state", "code"),
    [
        (lambda _: None, "starting", "not_ready"),
        (lambda gate: gate.drain(), "draining", "draining"),
        (lambda gate: gate.fail("the engine is gone: SECRET"), "failed", "engine_stopped"),
    ],
)
async def test_a_worker_that_takes_nothing_says_so_everywhere_but_in_livez(change, state, code):
    worker = Worker(FakeEngine(), is_open=False)
    change(worker.gate)
    async with calling(worker) as client:
        for method, path in (("POST", "/v1/run"), ("GET", "/readyz"), ("GET", "/v1/tasks")):
            check_refusal(await client.request(method, path), 503, code)
        readyz = (await client.get("/readyz")).json()
        assert readyz["status"] == "unavailable"
        assert "/health" in readyz["error"]["message"] and "SECRET" not in str(readyz)
        health = await client.get("/health")
        assert (health.status_code, health.json()["state"]) == (503, state)
        assert health.json()["error"]["code"] == code
        assert int(health.headers["retry-after"]) >= 1
        assert (await client.get("/livez")).status_code == 200


# ---- hanging up (real sockets) ----


async def send(url_port: int, body: dict) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A raw request whose answer is still to be read."""
    reader, writer = await asyncio.open_connection("127.0.0.1", url_port)
    content = json.dumps(body).encode()
    head = "POST /v1/run HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
    return reader, writer


RUNS = {
    "decision": {"text": "a", "mode": "sentiment"},
    "decision stream": {"text": "a", "mode": "sentiment", "stream": True},
    "answer": {"text": "a", "mode": "chat"},
    "answer stream": {"text": "a", "mode": "chat", "stream": True},
    "both": {"text": STORY, "reply": True},
    "list": {"texts": ["a", "b"], "mode": "chat"},
}


@pytest.mark.parametrize("how", ["close", "reset", "half"])
@pytest.mark.parametrize("body", RUNS.values(), ids=RUNS.keys())
async def test_a_client_that_disconnects_frees_the_engine(body, how):
    engine = WatchedEngine(gate=asyncio.Event())
    async with served(Worker(engine)) as there:
        _, writer = await send(there.port, body)
        await engine.begun.wait()
        if how == "half":
            writer.write_eof()
        elif how == "reset":
            writer.transport.abort()
        else:
            writer.close()
        await engine.freed.wait()
        await there.worker.gate.wait_empty()
        assert engine.open_streams == 0
        writer.close()


async def test_hanging_up_leaves_the_neighbour_running():
    release = asyncio.Event()
    engine = WatchedEngine(gate=release)
    async with served(Worker(engine)) as there:
        _, leaving = await send(there.port, RUNS["answer stream"])
        await engine.begun.wait()
        engine.begun.clear()
        staying, _ = await send(there.port, RUNS["answer stream"])
        await engine.begun.wait()
        leaving.close()
        await engine.freed.wait()
        release.set()
        await staying.readuntil(b"event: done\n")


async def test_a_silent_stream_gets_comments():
    release = asyncio.Event()
    worker = Worker(WatchedEngine(gate=release), times=StreamTimes(keep_alive_s=0.01))
    async with served(worker) as there:
        reader, _ = await send(there.port, RUNS["answer stream"])
        await reader.readuntil(b"event: token\n")
        await reader.readuntil(b": still here\n\n")
        await reader.readuntil(b": still here\n\n")
        release.set()
        await reader.readuntil(b"event: done\n")


async def test_a_client_that_reads_nothing_is_dropped():
    endless = FakeEngine(pieces=("x" * 10_000,) * 10_000)
    worker = Worker(endless, times=StreamTimes(patience_s=0.05))
    async with served(worker) as there:
        reader, writer = await send(there.port, RUNS["answer stream"])
        await reader.readuntil(b"event: token\n")
        await worker.gate.wait_empty()
        assert endless.open_streams == 0
        writer.transport.abort()


def test_no_variable_of_the_environment_makes_it_send_measurements(monkeypatch):
    monkeypatch.setenv("FASTAPI_OTEL_AUTO_CONFIGURE", "true")
    chosen = Worker(FakeEngine()).app._telemetry
    assert not any(chosen[name] for name in ("tracing", "metrics", "logs", "auto_configure"))
