"""An engine request and its events survive the way to a worker and back."""

import json
from contextlib import suppress
from dataclasses import fields, replace
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_aio.bounds import MAX_SCHEMA_CHARS, MAX_TOKENS
from qwen_aio.client.frames import FrameReader
from qwen_aio.core import DecidedLabel, EngineRequest, Message, PromptStyle, Rendering, SamplingWish
from qwen_aio.errors import EngineStopped, InvalidRequest, QwenAioError
from qwen_aio.result import (
    Answer,
    AnswerStart,
    Decision,
    Explanation,
    FinishReason,
    Phrase,
    Safety,
    SampledToken,
    TextDelta,
    Timings,
    TokenLogprob,
    Truncation,
    Usage,
)
from qwen_aio.visible import has_visible
from qwen_aio.wire.engine import (
    MAX_ENGINE_REQUEST_BYTES,
    EngineRequestShape,
    engine_frame,
    engine_request_to_json,
    read_engine_event,
)
from qwen_aio.wire.error import ErrorResponse
from qwen_aio.wire.event import error_frame, event_frame
from qwen_aio.wire.request import MAX_BODY_BYTES, MAX_HISTORY, RunRequest

TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30)
PROBABILITY = st.floats(0, 1)
COUNT = st.integers(0, 10_000)
TIMINGS = st.builds(Timings, *[st.integers(0, 100_000).map(lambda tenths: tenths / 10)] * 4)
USAGE = st.builds(Usage, COUNT, COUNT, COUNT)
TRUNCATION = st.builds(Truncation, COUNT, st.booleans())

WISHES = st.builds(
    SamplingWish,
    max_tokens=st.none() | st.integers(1, MAX_TOKENS),
    temperature=st.none() | st.floats(0, 5),
    top_p=st.none() | st.floats(0.01, 1),
    top_k=st.none() | st.integers(0, 1_000_000),
    repetition_penalty=st.none() | st.floats(0.01, 5),
    stop=st.none() | st.lists(TEXT, min_size=1, max_size=8).map(tuple),
    seed=st.none() | st.integers(0, 2**63 - 1),
    presence_penalty=st.none() | st.floats(-2, 2),
    frequency_penalty=st.none() | st.floats(-2, 2),
)
REQUESTS = st.builds(
    EngineRequest,
    request_id=st.just("r1"),
    task=TEXT,
    text=TEXT.filter(has_visible),
    history=st.lists(st.builds(Message, st.sampled_from(["user", "assistant"]), st.text(max_size=9)), max_size=4).map(
        tuple
    ),
    sampling=WISHES,
    decided=st.none() | st.builds(DecidedLabel, TEXT, TEXT),
    resume=st.lists(st.integers(0, 2**31 - 1), max_size=20).map(tuple),
    timeout_s=st.none() | st.floats(0.001, 600),
    rendering=st.builds(Rendering, st.sampled_from(get_args(PromptStyle)), st.none() | st.text(max_size=9)),
    top_logprobs=st.none() | st.integers(0, 20),
    json_schema=st.none() | st.text(st.characters(codec="utf-8"), max_size=30),
    explain=st.booleans(),
)
EXPLANATIONS = st.builds(
    Explanation,
    TEXT,
    st.lists(st.builds(Phrase, TEXT, st.integers(0, 99), st.floats(-1, 1)), max_size=3).map(tuple),
    st.none() | TEXT,
    USAGE,
    PROBABILITY,
)
DECISIONS = st.builds(
    Decision,
    task=TEXT,
    label=TEXT,
    emotion=TEXT,
    emoji=TEXT,
    confidence=st.sampled_from(["高", "中", "低"]),
    best_label=TEXT,
    probability=PROBABILITY,
    scores=st.dictionaries(TEXT, PROBABILITY, max_size=4),
    abstained=st.booleans(),
    label_mass=PROBABILITY,
    text=TEXT,
    merged=TEXT,
    usage=USAGE,
    timings=TIMINGS,
    truncation=TRUNCATION,
    calibrated=st.booleans(),
    explanation=st.none() | EXPLANATIONS,
    worker=TEXT,
    model=TEXT,
)
LOGPROBS = st.builds(
    TokenLogprob,
    st.text(max_size=9),
    st.none() | st.lists(st.integers(0, 255), min_size=1, max_size=9).map(tuple),
    st.floats(-9999, 0),
)
SAMPLED = st.builds(SampledToken, LOGPROBS, st.lists(LOGPROBS, max_size=3).map(tuple), st.integers(0, 10_000))
PIECES = st.builds(
    TextDelta,
    st.text(max_size=20),
    st.lists(st.integers(0, 2**31 - 1), max_size=5).map(tuple),
    logprobs=st.lists(SAMPLED, max_size=2).map(tuple),
)
SAFETY = st.none() | st.builds(Safety, TEXT, st.none() | PROBABILITY, st.sampled_from(["words", "model"]))
STARTS = st.builds(AnswerStart, st.none() | st.integers(0, 2**63 - 1), SAFETY)
REASONS = st.sampled_from(get_args(FinishReason))
ANSWERS = st.builds(Answer, TEXT, st.text(max_size=30), REASONS, USAGE, TIMINGS, TRUNCATION, TEXT, TEXT, SAFETY)
NAMES = {Decision: "decision", AnswerStart: "start", TextDelta: "piece", Answer: "answer"}


def read_frame(frame: bytes) -> tuple[str, bytes]:
    [event] = FrameReader().feed(frame)
    return event


def refused(body: str) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        EngineRequestShape.read(body.encode())
    return caught.value


@given(REQUESTS)
def test_a_request_survives_the_way_there(request: EngineRequest):
    # What is too long for a field is not what this is about.
    request = replace(request, task=request.task[:64])
    assert EngineRequestShape.read(engine_request_to_json(request)).to_core("r1") == request


@given(DECISIONS | STARTS | PIECES | ANSWERS)
def test_an_event_survives_the_way_back(event):
    name, data = read_frame(engine_frame(event))
    assert name == NAMES[type(event)]
    assert read_engine_event(name, data) == event


def test_every_field_of_a_request_travels():
    """A new field of EngineRequest needs one in its shape."""
    shaped = {"task", "text", "history", "sampling", "decided", "resume", "timeout_s"}
    shaped |= {"rendering", "top_logprobs", "json_schema", "explain"}
    headers = {"request_id", "traceparent"}
    assert {field.name for field in fields(EngineRequest)} == shaped | headers
    wishes = {field.name for field in fields(SamplingWish)}
    assert set(EngineRequestShape.model_fields) == wishes | shaped - {"sampling", "decided"} | {"decision"}


def test_a_rendering_is_written_only_where_it_is_not_that_of_v1_run():
    """A worker of an older version refuses the field."""
    plain, chat = EngineRequest("r1", "chat", "hi"), Rendering("chat", on_overflow="error")
    assert "rendering" not in json.loads(engine_request_to_json(plain))
    fields = json.loads(engine_request_to_json(replace(plain, rendering=chat)))
    assert fields["rendering"] == {"style": "chat", "on_overflow": "error"}


def test_what_an_older_worker_refuses_is_written_only_where_it_was_asked_for():
    plain = EngineRequest("r1", "chat", "hi")
    assert not {"top_logprobs", "json_schema", "explain"} & json.loads(engine_request_to_json(plain)).keys()
    assert json.loads(engine_request_to_json(replace(plain, top_logprobs=0)))["top_logprobs"] == 0
    assert engine_frame(TextDelta("你", (7, 8))) == 'event: piece\ndata: {"text":"你","token_ids":[7,8]}\n\n'.encode()
    assert event_frame(TextDelta("你", index=3)) == 'event: token\ndata: {"index":3,"text":"你"}\n\n'.encode()


def test_what_was_decided_and_what_was_sent_are_written_as_the_contract_says():
    request = EngineRequest("r1", "chat", "你好", decided=DecidedLabel("sentiment", "negative"), resume=(7, 8))
    fields = json.loads(engine_request_to_json(request))
    assert fields["decision"] == {"task": "sentiment", "label": "negative"}
    assert fields["resume"] == {"token_ids": [7, 8]}
    assert "你好".encode() in engine_request_to_json(request)  # six bytes, not twelve


@pytest.mark.parametrize("letter", ["x", "好", "\n", '"', "\x01", "😊", "\u2028"])
def test_the_largest_request_still_fits_when_it_has_become_a_call(letter):
    empty = {"text": "", "mode": "chat", "stream": True}
    turns = [{"role": role, "content": ""} for role in ("user", "assistant")] * (MAX_HISTORY // 2)
    for body in (empty, empty | {"history": turns}):
        room = MAX_BODY_BYTES - len(json.dumps(body | {"text": "x"}, separators=(",", ":")))
        text = "x" + letter * (room // len(json.dumps(letter, ensure_ascii=False).encode()[1:-1]))
        sent = json.dumps(body | {"text": text}, ensure_ascii=False, separators=(",", ":")).encode()
        assert MAX_BODY_BYTES - 10 < len(sent) <= MAX_BODY_BYTES
        [request] = RunRequest.read(sent).to_core("r1")
        most = SamplingWish(MAX_TOKENS, 1 / 3, 1 / 3, 1_000_000, 1 / 3, (letter * 64,) * 8, 2**63 - 1)
        decided, resume = DecidedLabel("t" * 64, "l" * 64), (2**31 - 1,) * MAX_TOKENS
        request = EngineRequest("r1", "t" * 64, text, request.history, most, decided, resume, 599.999999999)
        grown = replace(request, json_schema='"' * (MAX_SCHEMA_CHARS // 2))  # twice as long in a string as in the body
        assert len(engine_request_to_json(grown)) <= MAX_ENGINE_REQUEST_BYTES


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ('{"task": "chat", "text": ""}', "text"),
        ('{"task": "", "text": "a"}', "task"),
        ('{"task": "chat", "text": "a", "resume": null}', "resume"),
        ('{"task": "chat", "text": "a", "decision": {"task": "s", "label": 1}}', "decision.label"),
        ('{"task": "chat", "text": "a", "resume": {"token_ids": ["7"]}}', "resume.token_ids.0"),
        ('{"task": "chat", "text": "a", "resume": {"token_ids": [1.0]}}', "resume.token_ids.0"),
        ('{"task": "chat", "text": "a", "resume": {"token_ids": [true]}}', "resume.token_ids.0"),
        ('{"task": "chat", "text": "a", "stream": true}', "stream"),
        ('{"task": "chat", "text": "a", "top_logprobs": 21}', "top_logprobs"),
        (json.dumps({"task": "chat", "text": "a", "json_schema": "x" * (MAX_SCHEMA_CHARS + 1)}), "json_schema"),
        ('{"task": "chat", "text": "a", "top_logprobs": true}', "top_logprobs"),
        ('{"task": "chat", "task": "chat", "text": "a"}', None),
    ],
)
def test_an_engine_request_is_read_as_strictly_as_a_public_one(body, param):
    assert refused(body).param == param


def test_an_unknown_field_inside_another_does_not_name_the_fields_of_a_third():
    message = refused('{"task": "chat", "text": "a", "resume": {"token_ids": [1], "text": "a"}}').message
    assert message == 'unknown field "text"'


@given(st.binary(max_size=200))
def test_no_bytes_lead_to_anything_but_a_request_or_a_refusal(body):
    try:
        EngineRequestShape.read(body)
    except InvalidRequest as exc:
        assert ErrorResponse.from_core(exc, "r").to_json()


def test_an_error_comes_back_by_its_own_class():
    name, data = read_frame(error_frame(EngineStopped("gone"), "r1"))
    with pytest.raises(EngineStopped, match="gone"):
        read_engine_event(name, data)


def test_an_event_of_a_later_version_is_passed_over():
    assert read_engine_event("thought", b"{}") is None


@given(st.sampled_from(["decision", "piece", "answer", "error", "x", ""]), st.binary(max_size=60))
def test_a_damaged_event_is_an_error_of_value(name, data):
    with suppress(ValueError, QwenAioError):
        assert read_engine_event(name, data) is None  # a name it does not know
