"""The official client against a real worker with the bundled model."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionChunk

from tests.e2e.processes import running

HI = [{"role": "user", "content": "你好"}]
SENTIMENT = "qwen-aio/sentiment"


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    with running(tmp_path_factory.mktemp("home"), "--mode", "worker", "--id", "qwen-1") as app:
        yield app


@pytest.fixture(scope="module")
def client(worker):
    with OpenAI(base_url=f"{worker.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def model(client) -> str:
    """The chat model: the first of the list."""
    return client.models.list().data[0].id


def text_of(chunks: Iterable[ChatCompletionChunk]) -> str:
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


def test_models_are_listed_and_found(client, model):
    ids = [each.id for each in client.models.list()]
    assert ids[0] == model
    assert SENTIMENT in ids
    assert client.models.retrieve(model).id == model
    assert client.models.retrieve(SENTIMENT).id == SENTIMENT


def test_log_probabilities_are_those_of_the_text(client, model):
    asked = {"model": model, "messages": HI, "seed": 3, "max_completion_tokens": 24, "logprobs": True}
    choice = client.chat.completions.create(**asked, top_logprobs=20, presence_penalty=1).choices[0]
    content = choice.logprobs.content
    spelled = bytes(byte for token in content for byte in token.bytes).decode(errors="ignore")
    assert spelled.strip() == choice.message.content != ""
    for token in content:
        assert [len(token.top_logprobs), token.logprob <= 0] == [20, True]
        assert token.top_logprobs == sorted(token.top_logprobs, key=lambda other: -other.logprob)
    old = client.completions.create(model=model, prompt="今天", max_tokens=8, seed=3, logprobs=5).choices[0].logprobs
    assert len(old.tokens) == len(old.token_logprobs) == len(old.text_offset) == len(old.top_logprobs)
    with pytest.raises(openai.BadRequestError, match="logprobs are the chat model's"):
        client.chat.completions.create(model=SENTIMENT, messages=HI, logprobs=True)


def test_an_answer_keeps_to_a_json_schema(client, model):
    schema = {
        "type": "object",
        "properties": {"mood": {"enum": ["正面", "负面"]}, "stars": {"type": "integer", "minimum": 1, "maximum": 5}},
        "required": ["mood", "stars"],
        "additionalProperties": False,
    }
    by_schema = {"type": "json_schema", "json_schema": {"name": "review", "strict": True, "schema": schema}}
    asked = {"model": model, "messages": HI, "seed": 3, "response_format": by_schema}
    whole = client.chat.completions.create(**asked).choices[0]
    found = json.loads(whole.message.content)
    assert (whole.finish_reason, [*found]) == ("stop", ["mood", "stars"])
    assert found["mood"] in ("正面", "负面") and 1 <= found["stars"] <= 5
    assert text_of(client.chat.completions.create(**asked, stream=True)) == whole.message.content
    by_schema["json_schema"]["schema"] = {"pattern": "x"}
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError, match='"pattern" is not supported'):
            client.chat.completions.create(**asked, stream=stream)
    assert client.chat.completions.create(model=model, messages=HI, max_tokens=4).choices[0].message.content


def test_a_chat_is_the_same_whole_and_streamed(client, model, worker):
    asked = {"model": model, "messages": HI, "seed": 3, "max_completion_tokens": 24}
    whole = client.chat.completions.create(**asked)
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert whole.choices[0].message.content == text_of(chunks) != ""
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    usage = chunks[-1].usage
    assert usage is not None and whole.usage is not None
    assert usage.completion_tokens == whole.usage.completion_tokens <= 24
    assert usage.prompt_tokens_details is not None
    assert usage.prompt_tokens_details.cached_tokens > 20  # the system turn at least
    tokens = worker.post("/tokenize", {"messages": HI})[1]
    assert tokens["count"] == len(tokens["tokens"]) == usage.prompt_tokens
    assert tokens["max_model_len"] == 2048


def test_usage_counts_what_came_in_before_a_cut(client, model, worker):
    messages = [{"role": "user", "content": "".join(map(str, range(4000)))}]
    with pytest.raises(openai.BadRequestError, match="more than the"):
        client.chat.completions.create(model=model, messages=messages)
    asked = {"model": model, "messages": messages, "max_tokens": 4}
    usage = client.chat.completions.create(**asked, extra_body={"on_overflow": "cut"}).usage
    assert usage is not None
    tokens = worker.post("/tokenize", {"messages": messages})[1]
    assert usage.prompt_tokens == tokens["count"] > tokens["max_model_len"]
    assert usage.prompt_tokens - usage.prompt_tokens_details.cut_tokens + 4 == tokens["max_model_len"]


def test_a_stop_string_and_a_limit_end_an_answer(client, model):
    whole = client.chat.completions.create(model=model, messages=HI, temperature=0).choices[0].message.content
    assert whole
    stop = whole[len(whole) // 2]
    stopped = client.chat.completions.create(model=model, messages=HI, temperature=0, stop=stop).choices[0]
    assert (stopped.message.content, stopped.finish_reason) == (whole[: whole.index(stop)].rstrip(), "stop")
    short = client.chat.completions.create(model=model, messages=HI, temperature=0, max_tokens=1).choices[0]
    assert short.finish_reason == "length"


def test_a_completion_for_old_clients(client, model):
    asked = {"model": model, "prompt": "这家店的", "temperature": 0, "max_tokens": 8}
    whole = client.completions.create(**asked)
    streamed = "".join(chunk.choices[0].text for chunk in client.completions.create(**asked, stream=True))
    assert whole.choices[0].text == streamed
    assert whole.usage is not None and whole.usage.completion_tokens <= 8


def test_a_client_that_knows_only_chat_classifies(client):
    for text, label in (("快递太慢了,差评!", "负面"), ("客服态度超好,必须点赞!", "正面")):
        messages = [{"role": "user", "content": text}]
        found = client.chat.completions.create(model=SENTIMENT, messages=messages).choices[0]
        assert found.message.content.startswith(f"【情感】:{label} 【置信】:")
        assert text_of(client.chat.completions.create(model=SENTIMENT, messages=messages, stream=True)).startswith(
            f"【情感】:{label}"
        )


def test_a_label_comes_with_an_answer(client, model):
    asked = {"model": model, "messages": [{"role": "user", "content": "快递太慢了,差评!"}], "seed": 3, "max_tokens": 8}
    with_label = {"extra_body": {"decide": "sentiment"}}
    whole = client.chat.completions.create(**asked, **with_label)
    assert whole.decision["label"] == "negative"
    first, *others = client.chat.completions.create(**asked, **with_label, stream=True)
    assert first.decision["label"] == "negative"
    assert text_of(others) == whole.choices[0].message.content
    assert not any(hasattr(chunk, "decision") for chunk in others)
    assert not hasattr(client.chat.completions.create(**asked), "decision")


def test_somebody_in_danger_gets_the_fixed_text(client, model):
    messages = [{"role": "user", "content": "我不想活了"}]
    choice = client.chat.completions.create(model=model, messages=messages).choices[0]
    assert choice.finish_reason == "content_filter"
    assert "12356" in choice.message.content


def test_errors_are_the_clients_own_exceptions(client, model):
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="gpt-4o", messages=HI)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="allow-system-messages"):
        client.chat.completions.create(model=model, messages=[{"role": "system", "content": "x"}, *HI])
    with pytest.raises(openai.BadRequestError, match="tools is not supported"):
        client.chat.completions.create(
            model=model, messages=HI, tools=[{"type": "function", "function": {"name": "f"}}]
        )
    for text in ("很长的一句话，" * 2000, "a long text " * 40_000):
        for asked in ({"model": model}, {"model": SENTIMENT}, {"model": model, "stream": True}):
            with pytest.raises(openai.BadRequestError) as long:
                client.chat.completions.create(messages=[{"role": "user", "content": text}], **asked)
            assert long.value.code == "context_length_exceeded"


async def test_the_async_client_streams_many_at_once(worker, model):
    async with AsyncOpenAI(base_url=f"{worker.url}/v1", api_key="none", max_retries=0) as client:

        async def answer(seed: int) -> str:
            chunks = await client.chat.completions.create(
                model=model, messages=HI, seed=seed, max_tokens=12, stream=True
            )
            return text_of([chunk async for chunk in chunks])

        alone = [await answer(seed) for seed in range(3)]
        assert await asyncio.gather(*map(answer, range(3))) == alone


async def test_a_client_that_leaves_a_stream_frees_the_worker(worker, model):
    async with AsyncOpenAI(base_url=f"{worker.url}/v1", api_key="none", max_retries=0) as client:
        stream: AsyncIterator[ChatCompletionChunk] = await client.chat.completions.create(
            model=model, messages=HI, stream=True
        )
        await anext(stream)
    with suppress(openai.APIConnectionError):
        await stream.close()  # type: ignore[attr-defined]
    worker.wait_until("free", lambda: worker.get("/health")[1]["in_flight"] == 0)
