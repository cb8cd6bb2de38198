"""What a balancer requests of a worker, over HTTP: one engine request, one stream of events."""

import asyncio
import gc
import json
from types import AsyncGeneratorType

import pytest

from qwen_aio.core import Text
from qwen_aio.errors import EngineStopped, InvalidRequest, QueueFull, RequestFailed
from qwen_aio.result import Answer, Decision
from qwen_aio.wire.engine import ENGINE_PATH, MAX_ENGINE_REQUEST_BYTES
from qwen_aio.wire.request import MAX_BODY_BYTES
from tests.asking import calling, check_refusal, sse
from tests.fakes import FakeEngine, user_text
from tests.served import TASKS, WatchedEngine, Worker, served

DECISION = {"task": "sentiment", "text": "有点小失望"}
ANSWER = {"task": "chat", "text": "你好"}


async def execute(engine: FakeEngine, body: dict) -> list[tuple[str, dict]]:
    """The events that `body` leads to."""
    async with calling(Worker(engine)) as client:
        response = await client.post(ENGINE_PATH, json=body)
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    return sse(response.text)


def spelled(engine: FakeEngine) -> str:
    """The last prompt, as the model sees it."""
    prompt = engine.prompts[-1]
    segments = (*prompt.head, *prompt.body)
    return "".join(segment.text if isinstance(segment, Text) else segment.token for segment in segments)


# ---- what is answered ----


async def test_a_decision_is_one_event_that_names_its_worker_and_model():
    [(name, fields)] = await execute(FakeEngine(), DECISION)
    assert name == "decision"
    assert (fields["label"], fields["emotion"], fields["decision_worker"], fields["model"]) == (
        "negative",
        "负面",
        "qwen-1",
        "fake",
    )
    assert fields["usage"] == {"prompt_tokens": 95, "cached_tokens": 71, "completion_tokens": 0, "cut_tokens": 0}


async def test_an_explained_decision_names_every_phrase():
    [(name, fields)] = await execute(FakeEngine(), DECISION | {"explain": True})
    assert name == "decision"
    phrases = sorted(fields["explanation"]["phrases"], key=lambda phrase: phrase["start"])
    assert "".join(phrase["text"] for phrase in phrases) == DECISION["text"]
    assert fields["explanation"]["label"] == "negative"
    assert fields["explanation"]["usage"]["prompt_tokens"] == 95 * len(phrases)


async def test_an_answer_is_pieces_with_their_token_ids_and_then_the_whole():
    start, *pieces, (name, fields) = await execute(FakeEngine(pieces=("抱", "歉", "。")), ANSWER | {"seed": 7})
    assert start == ("start", {"seed": 7, "safety": {"label": "ok", "probability": None, "source": "words"}})
    assert pieces == [
        ("piece", {"text": "抱", "token_ids": [0]}),
        ("piece", {"text": "歉", "token_ids": [1]}),
        ("piece", {"text": "。", "token_ids": [2]}),
    ]
    assert (name, fields["text"], fields["finish_reason"], fields["worker"], fields["model"]) == (
        "answer",
        "抱歉。",
        "stop",
        "qwen-1",
        "fake",
    )
    assert fields["usage"]["completion_tokens"] == 3


async def test_every_request_is_recorded_for_health():
    worker = Worker(FakeEngine())
    async with calling(worker) as client:
        await client.post(ENGINE_PATH, json=DECISION)
        await client.post(ENGINE_PATH, json=ANSWER)
    assert [type(outcome) for _, outcome in worker.recorded] == [Decision, Answer]


async def test_the_text_is_taken_as_it_is_and_no_routing_rule_looks_at_it():
    engine = FakeEngine()
    events = await execute(engine, {"task": "chat", "text": "请总结一下快递太慢了"})  # planning was the balancer's part
    assert [name for name, _ in events] == ["start", "piece", "piece", "answer"]
    assert user_text(engine.prompts[0]) == "请总结一下快递太慢了"


async def test_the_word_rule_of_safety_holds_here_too():
    engine = FakeEngine()  # a balancer of another version may know nothing of it
    [(name, answer)] = await execute(engine, {"task": "chat", "text": "我不想活了"})
    assert (name, answer["finish_reason"]) == ("answer", "fixed")
    assert answer["safety"] == {"label": "crisis", "probability": None, "source": "words"}
    assert engine.prompts == []


# ---- what a request carries ----


async def test_the_decided_label_reaches_the_prompt_of_the_answer():
    engine = FakeEngine()
    await execute(engine, ANSWER)
    without = spelled(engine)
    await execute(engine, ANSWER | {"decision": {"task": "sentiment", "label": "negative"}})
    assert "负面" not in without
    assert "负面" in spelled(engine)


async def test_the_history_reaches_the_prompt():
    engine = FakeEngine()
    history = [{"role": "user", "content": "昨天"}, {"role": "assistant", "content": "嗯"}]
    await execute(engine, ANSWER | {"history": history})
    [turn] = engine.prompts[0].turns
    assert next(segment.text for segment in turn if isinstance(segment, Text)) == "user\n昨天"


async def test_wishes_reach_the_engine_and_the_rest_is_as_the_task_says():
    engine = FakeEngine()
    await execute(engine, ANSWER | {"max_tokens": 7, "seed": 2**62, "stop": ["。"]})
    [sampling] = engine.samplings
    assert (sampling.max_tokens, sampling.seed, sampling.stop) == (7, 2**62, ("。",))
    assert sampling.temperature == TASKS["chat"].sampling.temperature


async def test_an_answer_continues_after_the_tokens_that_were_sent():
    engine = FakeEngine(pieces=("抱", "歉", "。"))
    events = await execute(engine, ANSWER | {"resume": {"token_ids": [0, 1]}})
    assert engine.resumes == [(0, 1)]
    assert [(name, fields["text"]) for name, fields in events[1:]] == [("piece", "。"), ("answer", "。")]
    assert events[1][1]["token_ids"] == [2]


async def test_the_id_of_the_request_reaches_the_engine_and_comes_back():
    engine = FakeEngine()
    async with calling(Worker(engine)) as client:
        response = await client.post(ENGINE_PATH, json=ANSWER, headers={"X-Request-ID": "from-the-balancer"})
    assert engine.call_ids == ["from-the-balancer"]
    assert response.headers["x-request-id"] == "from-the-balancer"


# ---- what is refused ----


@pytest.mark.parametrize("body", [DECISION, ANSWER])
async def test_an_error_before_the_first_event_has_a_status(body):
    async with calling(Worker(FakeEngine(error=QueueFull("full up", retry_after_s=4)))) as client:
        response = await client.post(ENGINE_PATH, json=body)
    assert check_refusal(response, 503, "queue_full")["message"] == "full up"
    assert response.headers["retry-after"] == "4"


@pytest.mark.parametrize("body", [DECISION, ANSWER])
async def test_a_request_that_failed_alone_is_answered_with_500(body):
    async with calling(Worker(FakeEngine(error=RequestFailed("it failed")))) as client:
        check_refusal(await client.post(ENGINE_PATH, json=body), 500, "request_failed")
        check_refusal(await client.post("/v1/run", json={"text": "你好", "mode": body["task"]}), 500, "request_failed")


async def test_pieces_without_text_are_sent_since_their_tokens_count():
    _, *pieces, (_, fields) = await execute(FakeEngine(pieces=("", "a", "", " b")), ANSWER)
    assert [(piece["text"], piece["token_ids"]) for _, piece in pieces] == [
        ("", [0]),
        ("a", [1]),
        ("", [2]),
        (" b", [3]),
    ]
    assert fields["text"] == "a b"


async def test_an_error_inside_the_stream_is_its_last_event():
    events = await execute(FakeEngine(pieces=("a", "b"), error=EngineStopped("gone"), error_after=1), ANSWER)
    assert [name for name, _ in events] == ["start", "piece", "error"]
    assert events[-1][1]["error"]["code"] == "engine_stopped"


async def test_what_the_engine_cannot_continue_is_the_client_s_mistake():
    refusal = InvalidRequest("the answer is over", param="resume")
    async with calling(Worker(FakeEngine(error=refusal))) as client:
        error = check_refusal(await client.post(ENGINE_PATH, json=ANSWER), 400, "invalid_request")
    assert error["param"] == "resume"


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ({"task": "poem", "text": "a"}, 404, "unknown_task", "task"),
        (ANSWER | {"decision": {"task": "poem", "label": "negative"}}, 404, "unknown_task", "task"),
        (ANSWER | {"decision": {"task": "sentiment", "label": "furious"}}, 400, "invalid_request", "decision"),
        (ANSWER | {"decision": {"task": "sentiment"}}, 400, "invalid_request", "decision.label"),
        (ANSWER | {"mode": "chat"}, 400, "invalid_request", "mode"),
        (ANSWER | {"resume": {"token_ids": [1], "text": "a"}}, 400, "invalid_request", "resume.text"),
        (ANSWER | {"resume": {"token_ids": []}}, 400, "invalid_request", "resume.token_ids"),
        (ANSWER | {"resume": {"token_ids": [1, -1]}}, 400, "invalid_request", "resume.token_ids.1"),
        (ANSWER | {"resume": {"token_ids": [2**31]}}, 400, "invalid_request", "resume.token_ids.0"),
        (ANSWER | {"resume": {"token_ids": [1] * 4097}}, 400, "invalid_request", "resume.token_ids"),
        (ANSWER | {"resume": [1]}, 400, "invalid_request", "resume"),
        (ANSWER | {"max_tokens": 0}, 400, "invalid_request", "max_tokens"),
        ({"task": "chat"}, 400, "invalid_request", "text"),
        ({"text": "a"}, 400, "invalid_request", "task"),
    ],
)
async def test_an_invalid_request_is_refused_and_the_field_named(body, status, code, param):
    engine = FakeEngine()
    async with calling(Worker(engine)) as client:
        error = check_refusal(await client.post(ENGINE_PATH, json=body), status, code)
    assert error["param"] == param
    assert engine.call_ids == []


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda _: None, "not_ready"),
        (lambda gate: gate.drain(), "draining"),
        (lambda gate: gate.fail("the engine is gone"), "engine_stopped"),
    ],
)
async def test_a_closed_worker_takes_no_engine_requests(change, code):
    worker = Worker(FakeEngine(), is_open=False)
    change(worker.gate)
    async with calling(worker) as client:
        check_refusal(await client.post(ENGINE_PATH, json=ANSWER), 503, code)


async def test_a_worker_that_drains_takes_no_more_engine_requests():
    worker = Worker(FakeEngine())
    worker.gate.drain()
    async with calling(worker) as client:
        check_refusal(await client.post(ENGINE_PATH, json=ANSWER), 503, "draining")
        check_refusal(await client.get(ENGINE_PATH), 405, "method_not_allowed")


async def test_an_engine_request_may_be_as_large_as_a_request_and_what_the_balancer_adds():
    def body(size: int) -> bytes:
        written = json.dumps(DECISION | {"text": ""}).encode()
        return written.replace(b'""', b'"' + b"x" * (size - len(written)) + b'"')

    json_body = {"Content-Type": "application/json"}
    async with calling(Worker(FakeEngine())) as client:
        largest = await client.post(ENGINE_PATH, content=body(MAX_ENGINE_REQUEST_BYTES), headers=json_body)
        assert [name for name, _ in sse(largest.text)] == ["decision"]
        too_large = await client.post(ENGINE_PATH, content=body(MAX_ENGINE_REQUEST_BYTES + 1), headers=json_body)
        check_refusal(too_large, 413, "body_too_large")
        public = await client.post("/v1/run", content=body(MAX_BODY_BYTES + 1), headers=json_body)
        check_refusal(public, 413, "body_too_large")


# ---- how it ends early ----


@pytest.mark.parametrize("body", [DECISION, ANSWER])
async def test_a_request_that_takes_too_long_ends_and_frees_the_engine(body):
    engine = WatchedEngine(gate=asyncio.Event())
    worker = Worker(engine)
    async with calling(worker) as client:
        response = await client.post(ENGINE_PATH, json=body | {"timeout_s": 0.01})
    assert "deadline_exceeded" in response.text
    assert (engine.cancelled, engine.open_streams, worker.gate.in_flight) == (1, 0, 0)


@pytest.mark.parametrize("how", ["close", "reset", "half"])
@pytest.mark.parametrize("body", [DECISION, ANSWER])
async def test_a_balancer_that_disconnects_frees_the_engine(body, how):
    engine = WatchedEngine(gate=asyncio.Event())
    async with served(Worker(engine)) as there:
        _, writer = await asyncio.open_connection("127.0.0.1", there.port)
        content = json.dumps(body).encode()
        head = f"POST {ENGINE_PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
        await engine.begun.wait()
        match how:
            case "close":
                writer.close()
            case "reset":
                writer.transport.abort()
            case "half":
                writer.write_eof()
        await engine.freed.wait()
        await there.worker.gate.wait_empty()
        assert engine.open_streams == 0
        writer.close()


async def test_engine_requests_are_in_flight_and_are_waited_for():
    release = asyncio.Event()
    engine = WatchedEngine(gate=release)
    worker = Worker(engine)
    async with calling(worker) as client:
        asking = asyncio.create_task(client.post(ENGINE_PATH, json=ANSWER))
        await engine.begun.wait()
        assert worker.gate.in_flight == 1
        worker.gate.drain()
        release.set()
        events = sse((await asking).text)
    assert [name for name, _ in events] == ["start", "piece", "piece", "answer"]
    await worker.gate.wait_empty()


async def test_requests_that_are_cut_off_get_the_reason():
    engine = WatchedEngine(gate=asyncio.Event())
    worker = Worker(engine)
    async with calling(worker) as client:
        asking = asyncio.create_task(client.post(ENGINE_PATH, json=ANSWER))
        await engine.begun.wait()
        worker.gate.drain()
        worker.gate.cut_off()
        events = sse((await asking).text)
    assert [name for name, _ in events] == ["start", "piece", "error"]
    assert events[-1][1]["error"]["code"] == "draining"
    assert engine.open_streams == 0


# ---- what it passes through ----


def open_generators() -> int:
    """Asynchronous generators of the product that have not ended."""
    found = (item for item in gc.get_objects() if type(item) is AsyncGeneratorType and item.ag_frame is not None)
    return sum("qwen_aio" in generator.ag_code.co_filename for generator in found)


@pytest.mark.parametrize(
    ("path", "body", "most"),
    [
        (ENGINE_PATH, DECISION, 2),
        ("/v1/run", {"mode": "sentiment", "text": "a"}, 2),
        ("/v1/run", {"mode": "sentiment", "text": "a", "stream": True}, 3),
    ],
)
async def test_a_decision_passes_through_few_generators(path, body, most):
    engine = WatchedEngine(gate=asyncio.Event())
    before = open_generators()
    async with calling(Worker(engine)) as client:
        asking = asyncio.create_task(client.post(path, json=body))
        await engine.begun.wait()
        assert open_generators() - before <= most
        engine.gate.set()
        assert (await asking).status_code == 200
