"""OpenAI's shapes: what a request means, what is refused by name, what is ignored, and how replies read."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_aio.bounds import MAX_SCHEMA_CHARS, MAX_TOKENS
from qwen_aio.core import Capabilities, ContextLimits, Message, Rendering, Request, SamplingWish
from qwen_aio.errors import InvalidRequest, QueueFull, UnknownModel
from qwen_aio.result import (
    Answer,
    Decided,
    Done,
    FinishReason,
    Result,
    Safety,
    SampledToken,
    TextDelta,
    Timings,
    TokenLogprob,
    Usage,
)
from qwen_aio.tasks.loader import load_tasks
from qwen_aio.wire.error import ErrorResponse
from qwen_aio.wire.openai.chat import ChatReply, ChatRequest
from qwen_aio.wire.openai.completion import CompletionReply, CompletionRequest
from qwen_aio.wire.openai.model import Addressee, ModelsResponse, addressed
from qwen_aio.wire.openai.reply import dangerous_labels, error_chunk
from qwen_aio.wire.openai.tokenize import read_tokenize
from tests.test_wire import DECISION, json_values

TASKS = load_tasks(Path("prompts"))
CAPABILITIES = Capabilities(TASKS, ContextLimits(2048, 1024), "qwen", "w")
CHAT, TASK = Addressee("qwen", "chat", is_chat_model=True), Addressee("qwen-aio/summarize", "summarize")
HI = [{"role": "user", "content": "hi"}]
WHOLE = Rendering("chat", None, "error")


def chat(*, to: Addressee = CHAT, allow: bool = False, **fields: object) -> Request:
    body = json.dumps({"messages": HI} | fields).encode()
    return ChatRequest.read(body).to_core("r1", to, allow_system_messages=allow)


def completion(*, to: Addressee = CHAT, **fields: object) -> Request:
    body = json.dumps({"prompt": "Once"} | fields).encode()
    return CompletionRequest.read(body).to_core("r1", to, allow_system_messages=False)


def refusal(read, **fields: object) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        read(**fields)
    assert ErrorResponse.from_core(caught.value, "r").to_json()
    assert len(caught.value.message) < 300
    return caught.value


# ---- requests ----


def test_a_chat_is_the_messages_as_they_are():
    messages = [
        {"role": "assistant", "content": "ＡＢ  "},
        {"role": "user", "content": " Ｘ"},
        {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]},
    ]
    history = (Message("assistant", "ＡＢ  "), Message("user", " Ｘ"))
    assert chat(messages=messages) == Request("one\ntwo", "chat", history=history, request_id="r1", rendering=WHOLE)


def test_every_sampling_field_arrives():
    wish = {"temperature": 0, "top_p": 0.5, "top_k": 3, "repetition_penalty": 1.5, "seed": 2**63 - 1}
    for read in (chat, completion):
        found = read(**wish, max_tokens=7, stop=["。", "\n"], presence_penalty=-2, frequency_penalty=0.5).sampling
        assert found == SamplingWish(7, 0, 0.5, 3, 1.5, ("。", "\n"), 2**63 - 1, -2, 0.5)
        assert read(stop="x").sampling.stop == ("x",)


def test_the_newer_name_of_max_tokens_wins():
    assert chat(max_tokens=7).sampling.max_tokens == 7
    assert chat(max_completion_tokens=8, max_tokens=7).sampling.max_tokens == 8


def test_a_completion_is_the_text_alone_and_short_by_default_as_at_openai():
    rendering = Rendering("completion", None, "error")
    assert completion() == Request("Once", "chat", sampling=SamplingWish(16), request_id="r1", rendering=rendering)
    assert completion(prompt=["Once"]) == completion()


@pytest.mark.parametrize("read", [chat, completion])
def test_a_task_is_asked_as_on_v1_run_but_nothing_is_cut(read):
    request = read(to=TASK)
    assert (request.mode, request.sampling) == ("summarize", SamplingWish())
    assert request.rendering == Rendering("task", None, "error")


@pytest.mark.parametrize("role", ["system", "developer"])
def test_a_system_message_is_taken_where_it_is_allowed(role):
    messages = [{"role": role, "content": "Be brief."}, *HI]
    assert chat(messages=messages, allow=True).rendering == Rendering("chat", "Be brief.", "error")
    assert "--allow-system-messages" in refusal(chat, messages=messages).message
    assert "qwen-aio/summarize has" in refusal(chat, messages=messages, to=TASK, allow=True).message


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([], "messages"),
        ("hi", "messages"),
        (None, "messages"),
        (HI * 1001, "messages"),
        ([*HI, {"role": "assistant", "content": "x"}], "messages"),
        ([{"role": "system", "content": "x"}], "messages"),
        ([*HI, {"role": "system", "content": "x"}, *HI], "messages.1.role"),
        ([{"role": "system", "content": "x"}, {"role": "developer", "content": "x"}, *HI], "messages.1.role"),
        ([{"role": "tool", "content": "x"}, *HI], "messages.0.role"),
        ([{"content": "x"}], "messages.0.role"),
        ([1], "messages.0"),
        ([{"role": "user", "content": " \n"}], "messages.0.content"),
        ([{"role": "user", "content": None}], "messages.0.content"),
        ([{"role": "user", "content": 1}], "messages.0.content"),
        ([{"role": "user", "content": []}], "messages.0.content"),
        ([{"role": "user", "content": ["x"]}], "messages.0.content.0.type"),
        ([{"role": "user", "content": [{"type": "text", "text": None}]}], "messages.0.content.0.text"),
        ([{"role": "assistant", "content": "x", "tool_calls": [{"id": "1"}]}, *HI], "tool_calls"),
    ],
)
def test_what_is_no_conversation_is_named(messages, param):
    assert refusal(chat, messages=messages, allow=True).param == param


def test_a_part_that_is_not_text_is_refused_by_name():
    parts = [{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": "SECRET"}}]
    error = refusal(chat, messages=[{"role": "user", "content": parts}])
    assert error.param == "messages.0.content.1.type"
    assert '"image_url"' in error.message and "SECRET" not in error.message


CHANGES_THE_OUTPUT = {
    "n": 2,
    "logit_bias": {"1": 5},
    "min_p": 0.1,
    "min_tokens": 3,
    "ignore_eos": True,
    "bad_words": ["x"],
    "allowed_token_ids": [1],
    "use_beam_search": True,
    "structured_outputs": {"choice": ["a"]},
    "guided_json": {},
    "guided_regex": "a+",
    "guided_choice": ["a"],
    "guided_grammar": "root",
    "json_schema": {},
    "grammar": "root",
}
CHANGES_A_CHAT = CHANGES_THE_OUTPUT | {
    "tools": [{"type": "function"}],
    "tool_choice": "auto",
    "functions": [{"name": "f"}],
    "function_call": "auto",
    "modalities": ["text", "audio"],
    "audio": {"voice": "x"},
    "prediction": {"type": "content", "content": "x"},
    "web_search_options": {},
    "reasoning_effort": "high",
    "verbosity": "low",
    "chat_template": "{{ 1 }}",
    "chat_template_kwargs": {"enable_thinking": True},
    "add_generation_prompt": False,
    "continue_final_message": True,
}
CHANGES_A_COMPLETION = CHANGES_THE_OUTPUT | {
    "best_of": 3,
    "echo": True,
    "suffix": "x",
    "response_format": {"type": "json_object"},
    "decide": "sentiment",
}
CHANGES_NOTHING = {
    "n": 1,
    "logit_bias": {},
    "response_format": {"type": "text"},
    "tools": [],
    "tool_choice": "none",
    "modalities": ["text"],
    "audio": None,
    "temperature": None,
    "stop": None,
    "stream_options": None,
    "user": "u",
    "metadata": {"a": "b"},
    "store": True,
    "service_tier": "auto",
    "parallel_tool_calls": True,
    "min_p": 0.0,
    "chat_template_kwargs": {},
    "from_the_future": [1],
}


@pytest.mark.parametrize(
    ("read", "name", "value"),
    [
        *((chat, *item) for item in CHANGES_A_CHAT.items()),
        *((completion, *item) for item in CHANGES_A_COMPLETION.items()),
    ],
)
def test_what_would_change_the_output_is_refused_by_name(read, name, value):
    error = refusal(read, **{name: value})
    assert (error.param, error.message.split()[0]) == (name, name)


def test_what_changes_nothing_and_what_is_unknown_is_ignored():
    assert chat(**CHANGES_NOTHING) == chat()
    assert completion(**CHANGES_NOTHING) == completion()


def test_log_probabilities_are_asked_for_as_at_openai():
    assert chat().top_logprobs is completion().top_logprobs is None
    assert chat(logprobs=False, top_logprobs=0).top_logprobs is chat(logprobs=None).top_logprobs is None
    assert chat(logprobs=True).top_logprobs == completion(logprobs=0).top_logprobs == 0
    assert chat(logprobs=True, top_logprobs=20).top_logprobs == 20
    assert completion(logprobs=5).top_logprobs == 5


SCHEMA = {"type": "object", "properties": {"名": {"type": "string", "default": None}}}


def by_schema(schema: object) -> dict:
    return {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}


def test_the_answer_may_be_any_json_object_or_keep_to_a_schema():
    assert chat(response_format={"type": "text"}).json_schema is None
    assert json.loads(chat(response_format={"type": "json_object"}).json_schema or "") == {"type": "object"}
    assert json.loads(chat(response_format=by_schema(SCHEMA)).json_schema or "") == SCHEMA


@pytest.mark.parametrize(
    ("response_format", "param"),
    [
        ("json_object", "response_format"),
        ({}, "response_format.type"),
        ({"type": "grammar"}, "response_format.type"),
        ({"type": "json_schema"}, "response_format.json_schema.schema"),
        (by_schema(None), "response_format.json_schema.schema"),
        (by_schema(True), "response_format.json_schema.schema"),
        (by_schema([SCHEMA]), "response_format.json_schema.schema"),
        (by_schema({"enum": ["x" * MAX_SCHEMA_CHARS]}), "response_format.json_schema.schema"),
    ],
)
def test_another_format_is_refused_by_name(response_format, param):
    assert refusal(chat, response_format=response_format).param == param


def test_a_task_has_a_format_of_its_own():
    error = refusal(chat, response_format={"type": "json_object"}, to=TASK)
    assert (error.param, "qwen-aio/summarize" in error.message) == ("response_format", True)


@pytest.mark.parametrize(
    ("read", "fields", "param"),
    [
        (chat, {"top_logprobs": 2}, "top_logprobs"),
        (chat, {"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        (chat, {"logprobs": True, "top_logprobs": -1}, "top_logprobs"),
        (chat, {"logprobs": 1}, "logprobs"),
        (completion, {"logprobs": 6}, "logprobs"),
        (completion, {"logprobs": True}, "logprobs"),
        (chat, {"logprobs": True, "to": TASK}, "logprobs"),
        (completion, {"logprobs": 0, "to": TASK}, "logprobs"),
    ],
)
def test_other_log_probabilities_are_refused(read, fields, param):
    error = refusal(read, **fields)
    assert error.param == param
    assert "to" not in fields or "qwen-aio/summarize" in error.message


@pytest.mark.parametrize("read", [chat, completion])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model", ""),
        ("model", 1),
        ("temperature", -1),
        ("presence_penalty", 2.1),
        ("frequency_penalty", -2.1),
        ("temperature", "1"),
        ("top_p", 0),
        ("max_tokens", 0),
        ("max_tokens", MAX_TOKENS + 1),
        ("seed", -1),
        ("stop", ["x"] * 9),
        ("stop", ""),
        ("stop", 1),
        ("stream", "yes"),
        ("stream_options", {"include_usage": True}),
        ("stream_options", 1),
    ],
)
def test_a_field_out_of_range_is_named(read, name, value):
    assert (refusal(read, **{name: value}).param or "").split(".")[0] == name


@pytest.mark.parametrize("prompt", [None, "", " ", 1, [], ["a", "b"], [1, 2], [[1]]])
def test_a_completion_continues_one_text(prompt):
    assert refusal(completion, prompt=prompt).param == "prompt"


messages = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system", "tool"]), "content": json_values}),
    max_size=4,
)
names = st.sampled_from(sorted({*ChatRequest.model_fields, *CHANGES_A_CHAT, *CompletionRequest.model_fields}))


@given(st.dictionaries(names, json_values, max_size=4), messages | json_values, json_values | st.text())
def test_no_fields_lead_to_anything_but_a_request_or_a_refusal(fields, messages, prompt):
    for shape in (ChatRequest, CompletionRequest):
        try:
            read = shape.parse(fields | {"messages": messages, "prompt": prompt})
            request = read.to_core("r", CHAT, allow_system_messages=True)
        except InvalidRequest as exc:
            assert ErrorResponse.from_core(exc, "r").to_json()
            assert len(exc.message) < 1000
        else:
            assert request.rendering.on_overflow == (fields.get("on_overflow") or "error")


def test_a_chat_may_be_cut_if_it_asks_for_it():
    assert chat().rendering.on_overflow == "error"
    assert chat(on_overflow="cut").rendering.on_overflow == "cut"
    with pytest.raises(InvalidRequest, match="on_overflow"):
        chat(on_overflow="drop")


@given(st.floats(0, 2), st.floats(0.01, 1), st.integers(1, 1024), st.integers(0, 2**63 - 1))
def test_every_sampling_in_range_arrives_as_it_was_sent(temperature, top_p, max_tokens, seed):
    wish = chat(temperature=temperature, top_p=top_p, max_completion_tokens=max_tokens, seed=seed).sampling
    assert wish == SamplingWish(max_tokens, temperature, top_p, seed=seed)


# ---- whom a request is for ----


def test_the_chat_model_is_listed_first_then_decisions_then_the_other_tasks():
    fields = json.loads(ModelsResponse.from_core(CAPABILITIES, created=7).to_json())
    assert fields["object"] == "list"
    assert [model["id"] for model in fields["data"]] == [
        "qwen",
        "qwen-aio/safety",
        "qwen-aio/sentiment",
        "qwen-aio/chat",
        "qwen-aio/summarize",
    ]
    assert fields["data"][0] == {"id": "qwen", "object": "model", "created": 7, "owned_by": "qwen-aio"}


def test_whoever_is_listed_can_be_addressed_and_nobody_else():
    for shape in ModelsResponse.from_core(CAPABILITIES, created=7).data:
        assert addressed(shape.id, CAPABILITIES).id == shape.id
    assert addressed(None, CAPABILITIES) == addressed("qwen", CAPABILITIES) == CHAT
    for name in ("gpt-4", "sentiment", "qwen-aio/", "QWEN"):
        with pytest.raises(UnknownModel, match="does not exist"):
            addressed(name, CAPABILITIES)


def test_without_a_chat_task_there_is_no_chat_model():
    few = Capabilities({"sentiment": TASKS["sentiment"]}, CAPABILITIES.context, "qwen", "w")
    assert [shape.id for shape in ModelsResponse.from_core(few, created=7).data] == ["qwen-aio/sentiment"]
    with pytest.raises(UnknownModel, match="must be named"):
        addressed(None, few)


# ---- replies ----

DANGEROUS = dangerous_labels(TASKS)


def answered(text: str, finish_reason: FinishReason = "stop", safety: Safety | None = None) -> Result:
    answer = Answer("chat", text, finish_reason, Usage(60, 30, 2), Timings(), safety=safety)
    return Result("r1", "chat", "mode chat", "h", "qwen", "w", answer=answer)


def reply(kind=ChatReply, **includes: bool):
    includes = {"includes_usage": False, "includes_logprobs": False, "includes_decision": False} | includes
    return kind("r1", 7, "qwen", DANGEROUS, **includes)


def chunks(frames: bytes) -> list[dict]:
    *found, done, rest = frames.decode().split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return [json.loads(frame.removeprefix("data: ")) for frame in found]


USAGE = {
    "prompt_tokens": 60,
    "completion_tokens": 2,
    "total_tokens": 62,
    "prompt_tokens_details": {"cached_tokens": 30},
}


def test_a_chat_completion_reads_as_openais():
    assert json.loads(reply().whole(answered("你好"))) == {
        "id": "chatcmpl-r1",
        "object": "chat.completion",
        "created": 7,
        "model": "qwen",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "你好", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": USAGE,
    }


def test_a_completion_reads_as_openais():
    fields = json.loads(reply(CompletionReply).whole(answered("there was")))
    assert (fields["id"], fields["object"], fields["usage"]) == ("cmpl-r1", "text_completion", USAGE)
    assert fields["choices"] == [{"index": 0, "text": "there was", "logprobs": None, "finish_reason": "stop"}]


def test_a_stream_begins_with_the_role_and_ends_with_the_reason():
    events = [TextDelta("你", index=0), TextDelta("好", index=1), Done(answered("你好", "length"))]
    found = chunks(b"".join(map(reply().frame, events)))
    assert {(each["id"], each["object"], each["usage"]) for each in found} == {
        ("chatcmpl-r1", "chat.completion.chunk", None)
    }
    choices = [each["choices"][0] for each in found]
    assert [choice["delta"] for choice in choices] == [
        {"role": "assistant", "content": ""},
        {"content": "你"},
        {"content": "好"},
        {},
    ]
    assert [choice["finish_reason"] for choice in choices] == [None, None, None, "length"]


def test_a_stream_of_a_completion_is_its_text():
    events = [TextDelta("there", index=0), TextDelta(" was", index=1), Done(answered("there was"))]
    found = chunks(b"".join(map(reply(CompletionReply).frame, events)))
    assert [each["choices"][0]["text"] for each in found] == ["there", " was", ""]


THE = TokenLogprob("the", (116, 104, 101), -0.25)
PART = TokenLogprob("\\xe4", (0xE4,), -2.0)
END = TokenLogprob("<|im_end|>", None, -3.0)
TOKENS = (SampledToken(THE, (THE, PART), 0), SampledToken(PART, (THE, END), 3))


def as_chat(token: TokenLogprob) -> dict:
    return {"token": token.text, "logprob": token.logprob, "bytes": list(token.utf8) if token.utf8 else None}


def test_the_log_probabilities_of_a_chat_read_as_openais():
    expected = [
        as_chat(THE) | {"top_logprobs": [as_chat(THE), as_chat(PART)]},
        as_chat(PART) | {"top_logprobs": [as_chat(THE), as_chat(END)]},
    ]
    [choice] = json.loads(reply(includes_logprobs=True).whole(answered("the").with_logprobs(TOKENS)))["choices"]
    assert choice["logprobs"] == {"content": expected, "refusal": None}
    events = [TextDelta("the", index=0, logprobs=TOKENS[:1]), TextDelta("", index=1, logprobs=TOKENS[1:])]
    found = chunks(b"".join(map(reply(includes_logprobs=True).frame, [*events, Done(answered("the"))])))
    listed = [each["choices"][0]["logprobs"] for each in found]
    assert [each and each["content"] for each in listed] == [None, expected[:1], expected[1:], None]


def test_the_log_probabilities_of_a_completion_read_as_openais():
    [choice] = json.loads(reply(CompletionReply, includes_logprobs=True).whole(answered("the").with_logprobs(TOKENS)))[
        "choices"
    ]
    assert choice["logprobs"] == {
        "tokens": ["the", "\\xe4"],
        "token_logprobs": [-0.25, -2.0],
        "top_logprobs": [{"the": -0.25, "\\xe4": -2.0}, {"the": -0.25, "<|im_end|>": -3.0, "\\xe4": -2.0}],
        "text_offset": [0, 3],
    }


def test_an_answer_that_no_token_was_sampled_for_lists_none():
    fixed = answered("help", "fixed")
    for kind, empty in ((ChatReply, "content"), (CompletionReply, "tokens")):
        [choice] = json.loads(reply(kind, includes_logprobs=True).whole(fixed))["choices"]
        assert choice["logprobs"][empty] == []


def test_usage_is_one_more_chunk_without_choices():
    *_, usage = chunks(reply(includes_usage=True).frame(Done(answered(""))))
    assert (usage["choices"], usage["usage"]) == ([], USAGE)


def test_a_decision_is_its_fixed_format():
    result = Result("r1", "sentiment", "mode sentiment", "h", "qwen", "w", decision=DECISION)
    whole = json.loads(reply().whole(result))
    assert whole["choices"][0]["message"]["content"] == "【情感】:负面 【置信】:高"
    assert (whole["choices"][0]["finish_reason"], whole["usage"]["prompt_tokens"]) == ("stop", 95)
    found = chunks(reply().frame(Decided(DECISION)) + reply().frame(Done(result)))
    assert [each["choices"][0]["delta"].get("content") for each in found] == ["", "【情感】:负面 【置信】:高", None]


def test_a_decision_that_was_asked_for_comes_before_the_text():
    assert chat(decide="sentiment").decide == "sentiment"
    result = replace(answered("你好"), decision=DECISION)
    events = [Decided(DECISION), TextDelta("你好", index=0), Done(result)]
    first, second, last = chunks(b"".join(map(reply(includes_decision=True).frame, events)))
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert (first["decision"]["decision_task"], first["decision"]["label"]) == (DECISION.task, DECISION.label)
    assert second["choices"][0]["delta"] == {"content": "你好"}
    assert "decision" not in second and "decision" not in last
    whole = json.loads(reply(includes_decision=True).whole(result))
    assert (whole["decision"], whole["choices"][0]["message"]["content"]) == (first["decision"], "你好")
    assert "decision" not in json.loads(reply().whole(result))


@pytest.mark.parametrize(
    ("finish_reason", "safety", "code"),
    [
        ("stop", None, "stop"),
        ("length", Safety("ok", 0.9, "model"), "length"),
        ("extracted", None, "stop"),
        ("fixed", None, "stop"),  # a rule with a reply
        ("fixed", Safety("ok", None, "words"), "stop"),  # the opening of a task was replaced
        ("fixed", Safety("crisis", None, "words"), "content_filter"),
        ("fixed", Safety("medical", 0.8, "model"), "content_filter"),
        ("stop", Safety("crisis", 0.3, "model"), "stop"),
    ],
)
def test_only_the_safety_decision_is_a_content_filter(finish_reason, safety, code):
    result = answered("x", finish_reason, safety)
    assert json.loads(reply().whole(result))["choices"][0]["finish_reason"] == code
    assert chunks(reply().frame(Done(result)))[0]["choices"][0]["finish_reason"] == code


def test_an_error_in_a_stream_is_data_that_clients_raise():
    frame = error_chunk(QueueFull("full"), "r1")
    fields = json.loads(frame.removeprefix(b"data: "))
    assert frame.endswith(b"\n\n")
    assert {name: fields["error"][name] for name in ("message", "type", "param", "code")} == {
        "message": "full",
        "type": "overloaded_error",
        "param": None,
        "code": "queue_full",
    }


# ---- tokens ----


def test_tokens_are_those_of_a_chat_or_of_a_text():
    assert isinstance(read_tokenize({"messages": HI}), ChatRequest)
    assert isinstance(read_tokenize({"prompt": "x", "add_special_tokens": True}), CompletionRequest)
    for name, value in (("add_generation_prompt", False), ("return_token_strs", True), ("chat_template", "x")):
        assert refusal(lambda **fields: read_tokenize(fields), messages=HI, **{name: value}).param == name
