"""OpenAI's routes of a worker with a fake engine: the same gate, pipeline and safety as /v1/run."""

import asyncio
import json

import pytest

from qwen_aio.core import Prompt, Text
from qwen_aio.errors import ContextExceeded, EngineStopped
from tests.asking import calling, check_refusal
from tests.fakes import FakeEngine, user_text
from tests.served import TASKS, WatchedEngine, Worker, served

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
HI = {"messages": [{"role": "user", "content": "Ｈi"}]}
BODIES = {CHAT: HI, COMPLETIONS: {"prompt": "Once"}}


def spelled(prompt: Prompt) -> str:
    return "".join(each.text if isinstance(each, Text) else each.token for each in prompt.segments)


def chunks(body: str) -> list[dict]:
    """Those of a stream that ended well."""
    *found, done, rest = body.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return [json.loads(frame.removeprefix("data: ")) for frame in found]


# ---- the chat model ----


async def test_messages_reach_the_model_as_they_are_after_the_chat_tasks_system_turn():
    engine = FakeEngine()
    turns = [("user", " Ａ"), ("assistant", "b "), ("user", "Ｃ ")]
    body = {"messages": [{"role": role, "content": content} for role, content in turns], "max_tokens": 9, "seed": 3}
    async with calling(Worker(engine)) as client:
        response = await client.post(CHAT, json=body, headers={"X-Request-ID": "mine"})
    fields = response.json()
    assert (fields["id"], fields["model"]) == ("chatcmpl-mine", "fake")
    assert fields["choices"][0]["message"]["content"] == "你好"
    assert fields["usage"]["prompt_tokens_details"] == {"cached_tokens": 30}
    said = "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in turns)
    text = spelled(engine.prompts[-1])
    assert text.startswith("<|im_start|>system\n你是友善体贴的助手。")
    assert text.endswith(f"<|im_end|>\n{said}<|im_start|>assistant\n")
    assert engine.prompts[-1].must_fit
    assert (engine.samplings[0].max_tokens, engine.samplings[0].seed) == (9, 3)


async def test_a_system_message_takes_the_place_of_the_tasks_own():
    engine = FakeEngine()
    body = {"messages": [{"role": "system", "content": "Be brief."}, *HI["messages"]]}
    async with calling(Worker(engine, allow_system_messages=True)) as client:
        assert (await client.post(CHAT, json=body)).status_code == 200
    assert spelled(engine.prompts[-1]).startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nＨi")


async def test_a_system_message_is_refused_by_the_name_of_the_setting():
    engine = FakeEngine()
    body = {"messages": [{"role": "system", "content": "Be brief."}, *HI["messages"]]}
    async with calling(Worker(engine)) as client:
        error = check_refusal(await client.post(CHAT, json=body), 400, "invalid_request")
    assert "--allow-system-messages" in error["message"]
    assert engine.prompts == []


async def test_a_completion_continues_the_text_alone():
    engine = FakeEngine(pieces=("there", " was"))
    async with calling(Worker(engine)) as client:
        fields = (await client.post(COMPLETIONS, json=BODIES[COMPLETIONS])).json()
    assert fields["choices"][0]["text"] == "there was"
    assert spelled(engine.prompts[-1]) == "Once"
    assert engine.samplings[0].max_tokens == 16


async def test_log_probabilities_come_whole_and_streamed_and_only_where_they_are_asked_for():
    pieces = ("", "抱", "", "歉", "")
    async with calling(Worker(FakeEngine(pieces=pieces))) as client:
        asked = HI | {"logprobs": True, "top_logprobs": 2}
        [whole] = (await client.post(CHAT, json=asked)).json()["choices"]
        found = chunks((await client.post(CHAT, json=asked | {"stream": True})).text)
        [unasked] = (await client.post(CHAT, json=HI)).json()["choices"]
        [old] = (await client.post(COMPLETIONS, json=BODIES[COMPLETIONS] | {"logprobs": 0})).json()["choices"]
    content = whole["logprobs"]["content"]
    assert [token["token"] for token in content] == ["t0", "t1", "t2", "t3", "t4"]
    assert [len(token["top_logprobs"]) for token in content] == [2] * 5
    listed = [each["choices"][0]["logprobs"] for each in found]
    assert [token for each in listed if each for token in each["content"]] == content
    assert [len(each["content"]) if each else None for each in listed] == [None, 2, 2, 1, None]
    assert unasked["logprobs"] is None
    assert old["logprobs"]["top_logprobs"] == [{f"t{index}": -0.5} for index in range(5)]


async def test_a_schema_reaches_the_engine():
    engine = FakeEngine()
    async with calling(Worker(engine)) as client:
        for asked in ({}, {"response_format": {"type": "json_object"}}):
            assert (await client.post(CHAT, json=HI | asked)).status_code == 200
    assert engine.schemas == [None, '{"type": "object"}']


async def test_a_fixed_answer_has_no_tokens_to_list():
    body = {"messages": [{"role": "user", "content": "我不想活了"}], "logprobs": True}
    async with calling(Worker(FakeEngine())) as client:
        [choice] = (await client.post(CHAT, json=body)).json()["choices"]
    assert (choice["finish_reason"], choice["logprobs"]) == ("content_filter", {"content": [], "refusal": None})


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_a_stream_is_the_same_in_pieces(path):
    body = BODIES[path] | {"stream": True, "stream_options": {"include_usage": True}}
    async with calling(Worker(FakeEngine(pieces=("抱", "歉")))) as client:
        response = await client.post(path, json=body)
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    *texts, last, usage = chunks(response.text)
    parts = [choice.get("text") or choice.get("delta", {}).get("content", "") for choice in map(choice_of, texts)]
    assert "".join(parts) == "抱歉"
    assert choice_of(last)["finish_reason"] == "stop"
    assert usage["usage"]["completion_tokens"] == 2


def choice_of(chunk: dict) -> dict:
    [choice] = chunk["choices"]
    return choice


# ---- tasks ----


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_knows_only_chat_can_classify(stream):
    engine = FakeEngine()
    body = {"model": "qwen-aio/sentiment", "messages": [{"role": "user", "content": " 失望 "}], "stream": stream}
    async with calling(Worker(engine)) as client:
        response = await client.post(CHAT, json=body)
        old = await client.post(COMPLETIONS, json={"model": "qwen-aio/sentiment", "prompt": "失望"})
    if stream:
        content = "".join(choice_of(each)["delta"].get("content", "") for each in chunks(response.text))
    else:
        content = response.json()["choices"][0]["message"]["content"]
        assert response.json()["model"] == "qwen-aio/sentiment"
    assert content == "【情感】:负面 【置信】:高" == old.json()["choices"][0]["text"]
    assert spelled(engine.prompts[0]) == spelled(engine.prompts[1])  # white space evened out, as on /v1/run
    assert engine.prompts[0].must_fit


async def test_a_generating_task_has_its_own_prompt_and_sampling():
    engine = FakeEngine()
    async with calling(Worker(engine)) as client:
        await client.post(CHAT, json=HI | {"model": "qwen-aio/summarize"})
        await client.post("/v1/run", json={"text": "Ｈi", "mode": "summarize"})
    chat, run = engine.prompts
    assert spelled(chat) == spelled(run)
    assert engine.samplings[0] == engine.samplings[1] == TASKS["summarize"].sampling


async def test_models_are_listed_and_found():
    async with calling(Worker(FakeEngine())) as client:
        models = (await client.get("/v1/models")).json()["data"]
        assert [model["id"] for model in models][:2] == ["fake", "qwen-aio/safety"]
        assert (await client.get("/v1/models/qwen-aio/sentiment")).json()["id"] == "qwen-aio/sentiment"
        assert (await client.get("/v1/models/fake")).json() == models[0]
        check_refusal(await client.get("/v1/models/gpt-4"), 404, "model_not_found")
        check_refusal(await client.post("/v1/models"), 405, "method_not_allowed")


# ---- safety ----


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_somebody_in_danger_gets_the_fixed_text_whatever_the_format(path, stream):
    engine = FakeEngine()
    body = {CHAT: {"messages": [{"role": "user", "content": "我不想活了"}]}, COMPLETIONS: {"prompt": "我不想活了"}}
    async with calling(Worker(engine)) as client:
        response = await client.post(path, json=body[path] | {"stream": stream})
    choices = [choice_of(each) for each in (chunks(response.text) if stream else [response.json()])]
    assert choices[-1]["finish_reason"] == "content_filter"
    assert "12356" in json.dumps(choices, ensure_ascii=False)
    assert engine.samplings == []


async def test_json_that_was_asked_for_gives_way_to_the_fixed_text():
    engine = FakeEngine()
    body = {"messages": [{"role": "user", "content": "我不想活了"}], "response_format": {"type": "json_object"}}
    async with calling(Worker(engine)) as client:
        choice = choice_of((await client.post(CHAT, json=body | {"decide": "sentiment"})).json())
    assert choice["finish_reason"] == "content_filter"
    assert "12356" in choice["message"]["content"]
    assert engine.samplings == []


async def test_an_earlier_turn_counts_for_safety():
    turns = [("user", "我不想活了"), ("assistant", "我在。"), ("user", "嗯")]
    body = {"messages": [{"role": role, "content": content} for role, content in turns]}
    async with calling(Worker(FakeEngine())) as client:
        response = await client.post(CHAT, json=body)
    assert choice_of(response.json())["finish_reason"] == "content_filter"


# ---- errors ----


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_errors_have_openais_codes(path):
    async with calling(Worker(FakeEngine())) as client:
        error = check_refusal(await client.post(path, json=BODIES[path] | {"model": "gpt-4"}), 404, "model_not_found")
        assert (error["type"], error["param"]) == ("invalid_request_error", "model")
        check_refusal(await client.post(path, json=BODIES[path] | {"n": 2}), 400, "invalid_request")
        check_refusal(await client.post(path, json=BODIES[path] | {"max_tokens": 1025}), 400, "invalid_request")
        check_refusal(
            await client.post(path, content=b"{", headers={"Content-Type": "application/json"}), 400, "invalid_request"
        )
        check_refusal(await client.get(path), 405, "method_not_allowed")
    async with calling(Worker(FakeEngine(error=ContextExceeded("too long")))) as client:
        for stream in (False, True):
            answer = await client.post(path, json=BODIES[path] | {"stream": stream})
            check_refusal(answer, 400, "context_length_exceeded")
    async with calling(Worker(FakeEngine(), is_open=False)) as client:
        check_refusal(await client.post(path, json=BODIES[path]), 503, "not_ready")
        check_refusal(await client.get("/v1/models"), 503, "not_ready")


async def test_a_stream_that_fails_ends_with_an_error_and_not_with_done():
    engine = FakeEngine(pieces=("a", "b"), error=EngineStopped("gone"), error_after=1)
    async with calling(Worker(engine)) as client:
        response = await client.post(CHAT, json=HI | {"stream": True})
    last = response.text.strip().split("\n\n")[-1]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "engine_stopped"
    assert "event:" not in response.text


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_disconnects_frees_the_engine(stream):
    engine = WatchedEngine(gate=asyncio.Event())
    async with served(Worker(engine)) as there:
        _, writer = await asyncio.open_connection("127.0.0.1", there.port)
        content = json.dumps(HI | {"stream": stream}).encode()
        head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
        await engine.begun.wait()
        writer.close()
        await engine.freed.wait()
        await there.worker.gate.wait_empty()
        assert engine.open_streams == 0


# ---- a label of the last message ----


async def test_a_label_of_the_last_message_comes_with_the_chat_models_answer_and_changes_nothing_in_it():
    engine = FakeEngine(pieces=("抱", "歉"))
    messages = [
        {"role": "user", "content": "很好"},
        {"role": "assistant", "content": "谢谢"},
        {"role": "user", "content": "失望"},
    ]
    body = {"model": "fake", "messages": messages}
    async with calling(Worker(engine)) as client:
        plain = (await client.post(CHAT, json=body)).json()
        [alone] = engine.prompts
        with_label = (await client.post(CHAT, json=body | {"decide": "sentiment"})).json()
        _, deciding, answering = engine.prompts
    assert with_label["decision"]["label"] == "negative"
    assert user_text(deciding).endswith("失望") and "谢谢" not in spelled(deciding)
    assert answering == alone
    assert with_label["choices"] == plain["choices"]
    assert "decision" not in plain


async def test_a_task_is_told_the_label_as_on_v1_run():
    engine = FakeEngine()
    async with calling(Worker(engine)) as client:
        await client.post(CHAT, json=HI | {"model": "qwen-aio/chat", "decide": "sentiment"})
    assert "(负面)" in spelled(engine.prompts[-1])


@pytest.mark.parametrize(
    ("model", "task", "status", "code"),
    [
        ("fake", "poem", 404, "unknown_task"),
        ("fake", "chat", 404, "unknown_task"),
        ("qwen-aio/sentiment", "safety", 400, "invalid_request"),
    ],
)
async def test_only_a_decision_beside_an_answer_can_be_asked_for(model, task, status, code):
    async with calling(Worker(FakeEngine())) as client:
        refused = await client.post(CHAT, json=HI | {"model": model, "decide": task})
        assert check_refusal(refused, status, code)["param"] == "decide"


# ---- tokens ----


async def test_tokens_are_those_of_the_prompt_that_the_model_gets():
    engine = FakeEngine()
    async with calling(Worker(engine)) as client:
        for path, body in BODIES.items():
            await client.post(path, json=body)
            fields = (await client.post("/tokenize", json=body)).json()
            assert fields["tokens"] == await engine.tokenize(engine.prompts[-1])
            assert (fields["count"], fields["max_model_len"]) == (len(fields["tokens"]), 2048)
        sentiment = HI | {"model": "qwen-aio/sentiment"}
        await client.post(CHAT, json=sentiment)
        tokens = (await client.post("/tokenize", json=sentiment)).json()["tokens"]
        assert tokens == await engine.tokenize(engine.prompts[-1])
        check_refusal(await client.post("/tokenize", json={"model": "gpt-4", "prompt": "x"}), 404, "model_not_found")
        check_refusal(await client.post("/tokenize", json={}), 400, "invalid_request")
        check_refusal(await client.get("/tokenize"), 405, "method_not_allowed")
    async with calling(Worker(engine, is_open=False)) as client:
        check_refusal(await client.post("/tokenize", json=HI), 503, "not_ready")
