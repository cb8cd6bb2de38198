import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_aio.core import Capabilities, ContextLimits, Message, Rendering, Request, SamplingWish
from qwen_aio.errors import InvalidRequest, QueueFull, QwenAioError, UnknownTask
from qwen_aio.result import (
    Answer,
    Decided,
    Decision,
    Done,
    Explained,
    Explanation,
    Phrase,
    Result,
    TextDelta,
    Timings,
    Truncation,
    Usage,
)
from qwen_aio.tasks.loader import load_tasks
from qwen_aio.wire import result_to_json
from qwen_aio.wire.error import ErrorResponse, error_headers, http_status
from qwen_aio.wire.event import error_frame, event_frame, read_event
from qwen_aio.wire.request import MAX_HISTORY, MAX_TEXTS, RunRequest
from qwen_aio.wire.result import RunResponse
from qwen_aio.wire.task import TasksResponse

TASKS = load_tasks(Path("prompts"))
DECISION = Decision(
    task="sentiment",
    label="negative",
    emotion="负面",
    emoji="😔",
    confidence="高",
    best_label="negative",
    probability=0.94,
    scores={"positive": 0.04, "neutral": 0.02, "negative": 0.94},
    abstained=False,
    label_mass=0.99,
    text="【情感】:负面 【置信】:高",
    merged="【😔 LLM 情感判断:负面|高置信】",
    usage=Usage(95, 71, 0),
    timings=Timings(1.234, 88.04, 0.0, 90.06),
    truncation=Truncation(truncated=True),
    calibrated=True,
    worker="qwen-2",
)
ANSWER = Answer(
    "chat", "抱歉", "stop", Usage(60, 30, 2), Timings(1, 2, 3, 6), truncation=Truncation(2), worker="qwen-3"
)
RESULT = Result("r1", "sentiment", "rule sentiment.words: 失望", "abc", "m", "qwen-2", DECISION, ANSWER, 123.44)


def read(body: str | bytes) -> RunRequest:
    return RunRequest.read(body if isinstance(body, bytes) else body.encode())


def refused(body: str | bytes) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        read(body)
    return caught.value


def with_field(name: str, value: str) -> str:
    return f'{{"text": "hello", "{name}": {value}}}'


# ---- what is sent ----


def test_a_text_alone_is_enough():
    assert read('{"text": "你好"}').to_core("r1") == (Request("你好", request_id="r1"),)


def test_every_field_arrives():
    body = {
        "text": "a",
        "mode": "chat",
        "reply": True,
        "history": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}],
        "stream": True,
        "explain": True,
        "on_overflow": "error",
        "max_tokens": 7,
        "temperature": 0,
        "top_p": 1,
        "top_k": 3,
        "repetition_penalty": 1.5,
        "presence_penalty": -2,
        "frequency_penalty": 2,
        "stop": ["。", "\n"],
        "seed": 2**63 - 1,
        "timeout_s": 2,
    }
    assert set(body) | {"texts", "tasks"} == set(RunRequest.model_fields)
    assert read(json.dumps(body)).to_core("r") == (
        Request(
            "a",
            "chat",
            True,
            (Message("user", "x"), Message("assistant", "y")),
            SamplingWish(7, 0, 1, 3, 1.5, ("。", "\n"), 2**63 - 1, -2, 2),
            2,
            "r",
            rendering=Rendering(on_overflow="error"),
            explain=True,
        ),
    )


def test_tasks_become_requests_about_one_text_in_order():
    requests = read('{"text": "a", "tasks": ["urgency", "sentiment"], "seed": 3}').to_core("r")
    assert [(request.text, request.mode, request.sampling.seed) for request in requests] == [
        ("a", "urgency", 3),
        ("a", "sentiment", 3),
    ]


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"mode": "auto"}, "mode"),
        ({"reply": True}, "reply"),
        ({"stream": True}, "stream"),
        ({"history": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}, "history"),
        ({"tasks": []}, "tasks"),
        ({"tasks": ["a"] * 2}, "tasks"),
        ({"tasks": ["auto"]}, "tasks"),
        ({"tasks": ["a" * 65]}, "tasks.0"),
        ({"tasks": [str(number) for number in range(17)]}, "tasks"),
        ({"tasks": "a"}, "tasks"),
        ({"tasks": None}, "tasks"),
    ],
)
def test_tasks_go_with_one_text_alone_and_each_is_named_once(more, param):
    with pytest.raises(InvalidRequest) as refusal:
        read(json.dumps({"text": "a", "tasks": ["sentiment"]} | more))
    assert refusal.value.param == param


def test_tasks_and_texts_do_not_go_together():
    with pytest.raises(InvalidRequest) as refusal:
        read('{"texts": ["a"], "tasks": ["sentiment"]}')
    assert refusal.value.param == "texts"


def test_a_list_of_texts_becomes_requests_in_order():
    requests = read('{"texts": ["a", "b"], "mode": "sentiment"}').to_core("r")
    assert [(request.text, request.mode, request.request_id) for request in requests] == [
        ("a", "sentiment", "r"),
        ("b", "sentiment", "r"),
    ]


@pytest.mark.parametrize(
    "text",
    ["‮abc", "e" + "\u0301" * 10_000, "👨‍👩‍👧‍👦", "a\u0000b", "<|im_start|>system", "x" * 900_000],
    ids=range(6),
)
def test_odd_text_is_text(text):
    for written in (json.dumps({"text": text}), json.dumps({"text": text}, ensure_ascii=False)):
        assert read(written).text == text


def test_a_byte_order_mark_before_a_body_is_read_away():
    assert read(b'\xef\xbb\xbf{"text": "\xef\xbb\xbf a"}').text == "\ufeff a"


BROKEN = {
    "B1 empty": b"",
    "B2 not JSON": b"{text: 1}",
    "B3 truncated": b'{"text": "a',
    "B4 list": b"[]",
    "B4 null": b"null",
    "B4 string": b'"x"',
    "B4 number": b"1",
    "B4 true": b"true",
    "B7 duplicate": b'{"text": "a", "text": "b"}',
    "B7 duplicate with half a surrogate": b'{"\\ud800": 1, "\\ud800": 2}',
    "B7 duplicate inside": b'{"text": "a", "history": [{"role": "user", "role": "assistant", "content": ""}]}',
    "B8 deep list": b"[" * 10_000,
    "B8 deep object": b'{"text":' * 10_000 + b"1" + b"}" * 10_000,
    "B9 long integer": b'{"text": "a", "seed": ' + b"9" * 5000 + b"}",
    "B11 NaN": b'{"text": "a", "temperature": NaN}',
    "B11 Infinity": b'{"text": "a", "temperature": -Infinity}',
    "B18 not UTF-8": b'{"text": "\xff\xfe"}',
    "B18 BOM alone": b"\xef\xbb\xbf",
    "B18 BOM twice": b'\xef\xbb\xbf\xef\xbb\xbf{"text": "a"}',
    "B18 UTF-16": '{"text": "a"}'.encode("utf-16"),
    "B18 half a surrogate": b'{"text": "\\ud800"}',
    "B18 half a surrogate as a name": b'{"\\udfff": 1}',
    "B35 PNG": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR",
}


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_body_is_reported_in_a_short_sentence(body):
    error = refused(body)
    assert 10 < len(error.message) < 500
    assert ErrorResponse.from_core(error, "r").to_json()  # can be written down, whatever came in


OUT_OF_RANGE = [
    ("max_tokens", ["-1", "0", "1000000000", "1.5", "1.0", '"10"', "true", "null", "[]", "9" * 4000]),
    ("temperature", ["-1", "1e308", "1e999", '"0.5"', "false", "null"]),
    ("top_p", ["0", "2", "-0.1", '"1"']),
    ("top_k", ["-1", "1.5", "10000000"]),
    ("repetition_penalty", ["0", "-1", "6"]),
    ("presence_penalty", ["-2.1", "2.1", "null"]),
    ("frequency_penalty", ["-2.1", "2.1", '"1"']),
    ("seed", ["-1", str(2**63), "0.5"]),
    ("timeout_s", ["0", "-1", "601", "null"]),
    (
        "stop",
        ['""', '[""]', "[]", json.dumps(["a"] * 9), json.dumps(["a"] * 1000), json.dumps(["a" * 65]), "[1]", "null"],
    ),
    ("reply", ['"true"', "1", "null"]),
    ("stream", ["0", '"yes"']),
    ("mode", ["1", '""', json.dumps("x" * 65)]),
    ("history", ["{}", '"x"', "[1]", "null"]),
    ("explain", ['"true"', "1", "null"]),
    ("n", ["1000000"]),
    ("chat_template", ['"{{ 1 }}"']),
    ("logit_bias", ["{}"]),
    ("__class__", ["1"]),
]


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in OUT_OF_RANGE for value in values])
def test_a_field_out_of_range_is_named(name, value):
    error = refused(with_field(name, value))
    assert (error.param or "").split(".")[0] == name
    assert len(error.message) < 500


@pytest.mark.parametrize(
    "body", ["{}", '{"text": null}', '{"text": 1}', '{"text": ["a"]}', '{"text": "a", "texts": ["b"]}']
)
def test_there_must_be_one_text_or_a_list_of_texts(body):
    assert refused(body).param == "text"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"texts": []}, "texts"),
        ({"texts": ["a"] * (MAX_TEXTS + 1)}, "texts"),
        ({"texts": ["a", " \n"]}, "texts.1"),
        ({"texts": ["a", 1]}, "texts.1"),
        ({"texts": ["a"], "stream": True}, "texts"),
        ({"texts": ["a"], "history": [{"role": "user", "content": ""}, {"role": "assistant", "content": ""}]}, "texts"),
    ],
)
def test_a_list_of_texts_is_checked_one_by_one(body, param):
    assert refused(json.dumps(body)).param == param


@pytest.mark.parametrize(
    ("roles", "param"),
    [
        (["system", "user"], "history.0.role"),
        (["tool", "assistant"], "history.0.role"),
        (["assistant", "user"], "history.0.role"),
        (["user", "user"], "history.1.role"),
        (["user", "assistant", "assistant", "user"], "history.2.role"),
        (["user"], "history"),
        (["user", "assistant"] * (MAX_HISTORY // 2 + 1), "history"),
    ],
)
def test_a_history_is_complete_exchanges(roles, param):
    history = [{"role": role, "content": "secret words"} for role in roles]
    error = refused(json.dumps({"text": "a", "history": history}))
    assert error.param == param
    assert "secret" not in error.message


def test_a_message_has_no_other_fields():
    assert (
        refused('{"text": "a", "history": [{"role": "user", "content": "x", "name": "y"}]}').param == "history.0.name"
    )


def test_a_long_value_is_not_echoed():
    long = "SECRET" * 1000
    assert "SECRET" not in refused(json.dumps({"text": "a", "max_tokens": long})).message
    assert "SECRET" * 10 not in refused(json.dumps({"text": "a", long: 1})).message


def test_control_characters_in_a_name_stay_escaped():
    message = refused(json.dumps({"text": "a", "x\r\n\x1b[31m": 1})).message
    assert message.isprintable()


@given(st.binary(max_size=200))
def test_no_bytes_lead_to_anything_but_a_request_or_a_refusal(body):
    try:
        read(body)
    except InvalidRequest as exc:
        assert ErrorResponse.from_core(exc, "r").to_json()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)


@given(st.dictionaries(st.sampled_from(sorted(RunRequest.model_fields)) | st.text(max_size=5), json_values))
def test_no_fields_lead_to_anything_but_a_request_or_a_refusal(fields):
    try:
        RunRequest.parse(fields)
    except InvalidRequest as exc:
        assert len(exc.message) < 1000


def test_a_request_survives_the_way_there():
    history = (Message("user", "x"), Message("assistant", "y"))
    for request in (
        Request("a", request_id="r"),
        Request("a", "chat", True, history, SamplingWish(stop=("x",), seed=0, temperature=0.0), 3.0, "r"),
    ):
        sent = RunRequest.from_core(request, stream=True).model_dump_json(exclude_none=True)
        assert read(sent).to_core("r") == (request,)
        assert read(sent).stream


def test_a_request_out_of_range_is_refused_before_it_is_sent():
    for request in (Request("a", sampling=SamplingWish(max_tokens=0)), Request("\ud800")):
        with pytest.raises(InvalidRequest):
            RunRequest.from_core(request, stream=False)


# ---- what is answered ----


def test_a_decision_is_answered_as_the_contract_says():
    fields = json.loads(result_to_json(RESULT))
    reply = fields.pop("reply")
    assert fields == {
        "request_id": "r1",
        "mode": "sentiment",
        "task_hash": "abc",
        "model": "m",
        "worker": "qwen-2",
        "decision_task": "sentiment",
        "decision_worker": "qwen-2",
        "emotion": "负面",
        "emoji": "😔",
        "label": "negative",
        "confidence": "高",
        "best_label": "negative",
        "probability": 0.94,
        "scores": {"positive": 0.04, "neutral": 0.02, "negative": 0.94},
        "abstained": False,
        "calibrated": True,
        "label_mass": 0.99,
        "text": "【情感】:负面 【置信】:高",
        "merged": '【😔 LLM 情感判断:负面|高置信】→ "抱歉"',
        "reason": None,
        "explanation": None,
        "route": "rule sentiment.words: 失望",
        "usage": {"prompt_tokens": 95, "cached_tokens": 71, "completion_tokens": 0, "cut_tokens": 0},
        "timings": {"queue_ms": 1.2, "prefill_ms": 88.0, "decode_ms": 0.0, "total_ms": 90.1},
        "truncated": True,
        "dropped_turns": 0,
        "total_ms": 123.4,
    }
    assert reply == {
        "task": "chat",
        "text": "抱歉",
        "finish_reason": "stop",
        "safety": None,
        "worker": "qwen-3",
        "usage": {"prompt_tokens": 60, "cached_tokens": 30, "completion_tokens": 2, "cut_tokens": 0},
        "timings": {"queue_ms": 1.0, "prefill_ms": 2.0, "decode_ms": 3.0, "total_ms": 6.0},
        "truncated": False,
        "dropped_turns": 2,
    }


def test_an_answer_alone_has_no_decision_and_its_costs_on_top():
    fields = json.loads(result_to_json(Result("r", "chat", "default chat", "h", "m", "w", answer=ANSWER)))
    assert fields["label"] is None and fields["scores"] is None
    assert fields["merged"] == "抱歉"
    assert fields["usage"] == fields["reply"]["usage"]
    assert fields["timings"] == fields["reply"]["timings"]
    assert fields["dropped_turns"] == 2


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
counts = st.integers(0, 10**6)
ms = st.integers(0, 10**6).map(lambda tenths: tenths / 10)
ratios = st.floats(0, 1)
costs = {
    "usage": st.builds(Usage, counts, counts, counts),
    "timings": st.builds(Timings, ms, ms, ms, ms),
    "truncation": st.builds(Truncation, counts, st.booleans()),
}
numbers = st.floats(-1, 1)
explanations = st.builds(
    Explanation,
    label=texts,
    phrases=st.lists(st.builds(Phrase, texts, counts, numbers), max_size=3).map(tuple),
    reason=st.none() | texts,
    usage=costs["usage"],
    total_ms=ms,
)
decisions = st.builds(
    Decision,
    task=texts,
    label=texts,
    emotion=texts,
    emoji=texts,
    probability=ratios,
    scores=st.dictionaries(texts, ratios),
    label_mass=ratios,
    text=texts,
    merged=texts,
    explanation=st.none() | explanations,
    **costs,
)
answers = st.builds(Answer, task=texts, text=texts, worker=texts, **costs)
results = (
    st.builds(
        Result,
        request_id=texts,
        mode=texts,
        route=texts,
        task_hash=texts,
        model=texts,
        worker=texts,
        decision=decisions,
        answer=answers,
        total_ms=ms,
    )
    | st.builds(Result, texts, texts, texts, texts, texts, texts, st.none(), answers, ms)
    | st.builds(Result, texts, texts, texts, texts, texts, texts, decisions, st.none(), ms)
)


@given(results)
def test_a_result_survives_the_way_back(result):
    assert RunResponse.model_validate_json(result_to_json(result)).to_core() == result


@given(
    decisions.map(Decided) | st.builds(TextDelta, texts, index=counts) | explanations.map(Explained) | results.map(Done)
)
def test_an_event_survives_the_way_back(event):
    name, data = parts(event_frame(event))
    assert read_event(name, data) == event


def parts(frame: bytes) -> tuple[str, bytes]:
    """The name and data of one frame, which has exactly two lines."""
    head, data, *rest = frame.split(b"\n")
    assert rest == [b"", b""]
    return head.removeprefix(b"event: ").decode(), data.removeprefix(b"data: ")


def test_the_end_of_a_stream_says_why_it_ended():
    name, data = parts(event_frame(Done(RESULT)))
    assert name == "done"
    assert json.loads(data)["finish_reason"] == "stop"
    assert json.loads(data) == json.loads(result_to_json(RESULT)) | {"finish_reason": "stop"}


def test_an_error_event_is_raised_as_what_it_was():
    with pytest.raises(QueueFull, match="256 requests"):
        read_event(*parts(error_frame(QueueFull("256 requests are waiting"), "r1")))


def test_an_unknown_event_is_skipped_and_a_damaged_one_is_not():
    assert read_event("logprobs", b"{}") is None
    for name in ("decision", "token", "done", "error"):
        with pytest.raises(ValueError, match=name):
            read_event(name, b'{"index": "x"}')


def test_new_fields_of_a_newer_server_do_no_harm():
    fields = json.loads(result_to_json(RESULT)) | {"new": 1}
    fields["usage"]["new"] = 1
    fields["reply"]["new"] = 1
    assert RunResponse.model_validate(fields).to_core().answer == ANSWER


def all_errors(kind: type[QwenAioError] = QwenAioError) -> list[type[QwenAioError]]:
    return [kind, *(error for child in kind.__subclasses__() for error in all_errors(child))]


@pytest.mark.parametrize("kind", all_errors(), ids=lambda kind: kind.code)
def test_every_error_has_a_status_and_comes_back_as_itself(kind):
    error = kind("what happened and what to do", param="text", retry_after_s=3)
    fields = ErrorResponse.from_core(error, "r1").model_dump()["error"]
    assert set(fields) == {"message", "type", "param", "code", "request_id"}
    assert 400 <= http_status(error) < 600
    back = ErrorResponse.model_validate({"error": fields}).to_core(retry_after_s=3)
    assert (type(back), back.message, back.param, back.retry_after_s) == (kind, error.message, "text", 3)


def test_what_passes_says_when_to_come_back():
    assert error_headers(QueueFull("full")) == {"Retry-After": "1"}
    assert error_headers(QueueFull("full", retry_after_s=0)) == {"Retry-After": "1"}
    assert error_headers(QueueFull("full", retry_after_s=7)) == {"Retry-After": "7"}
    assert error_headers(UnknownTask("none")) == {}


def test_an_unknown_code_is_still_an_error():
    fields = {"error": {"message": "m", "type": "t", "param": None, "code": "from_the_future", "request_id": "r"}}
    assert type(ErrorResponse.model_validate(fields).to_core()) is QwenAioError


def test_tasks_tell_all_that_routing_and_the_page_need():
    shape = TasksResponse.from_core(
        Capabilities(TASKS, ContextLimits(2048, 1024), model="m", worker="w"),
        timeouts_s={"decision": 60.0, "generation": 300.0},
    )
    fields = TasksResponse.model_validate_json(shape.to_json())
    capabilities = fields.to_core()
    assert (capabilities.context, capabilities.model, capabilities.worker) == (ContextLimits(2048, 1024), "m", "w")
    back = capabilities.tasks
    for name, task in TASKS.items():
        for field in ("name", "kind", "title", "hash", "labels", "companion", "rules", "safety"):
            assert getattr(back[name], field) == getattr(task, field)
    assert back["chat"].sampling == TASKS["chat"].sampling
    assert {task.name: task.limits.timeout_s for task in fields.tasks} == {
        "sentiment": 60,
        "safety": 60,
        "chat": 300,
        "summarize": 300,
    }
    assert fields.limits.model_dump() == {
        "context_tokens": 2048,
        "answer_tokens": 1024,
        "body_bytes": 1_000_000,
        "texts": 256,
        "history_messages": 1000,
        "timeout_s": 600.0,
    }
    assert b"im_start" not in shape.to_json() and b"golden" not in shape.to_json()
