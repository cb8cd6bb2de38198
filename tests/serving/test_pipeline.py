import asyncio
from pathlib import Path
from typing import ClassVar

import pytest

from qwen_aio.core import Message, Request, SamplingWish
from qwen_aio.errors import DeadlineExceeded, EngineStopped, InvalidRequest, UnknownTask
from qwen_aio.result import Decided, Done, Explained, Result, Safety, TextDelta
from qwen_aio.serving.pipeline import Pipeline
from qwen_aio.tasks.loader import load_tasks
from qwen_aio.worker.execution.executor import LocalExecutor
from tests.fakes import FAKE_MODEL, FakeClock, FakeEngine, listed, user_text

TASKS = load_tasks(Path("prompts"))
STORY = "刚收到货,包装完好,但颜色和图片不太一样,有点小失望"


def pipeline(engine: FakeEngine) -> Pipeline:
    executor = LocalExecutor(
        engine, TASKS, model=FAKE_MODEL, worker="qwen-1", record=lambda *_: None, count=lambda _: None
    )
    return Pipeline(executor, clock=FakeClock())


class ByWord(FakeEngine):
    """Scores by a word in the text; CALM without one."""

    CALM: ClassVar = {"负面": 0.2, "正面": 0.5, "中性": 0.3}

    def __init__(self, words, **more):
        super().__init__(probabilities=dict(self.CALM), **more)
        self._words = words

    async def score(self, request_id, prompt, continuations):
        text = user_text(prompt).rpartition("\n")[2]  # behind the focus words
        self.probabilities = dict(next((found for word, found in self._words.items() if word in text), self.CALM))
        return await super().score(request_id, prompt, continuations)


async def run(engine: FakeEngine, request: Request) -> Result:
    *_, done = [event async for event in pipeline(engine).stream(request)]
    return done.result


async def test_the_published_story():
    engine = FakeEngine(pieces=("颜色", "不一样", "确实让人失望。"))
    result = await run(engine, Request(STORY, reply=True, request_id="r1"))
    assert (result.mode, result.route) == ("sentiment", "rule sentiment.words: 失望")
    assert (result.decision.label, result.decision.confidence) == ("negative", "高")
    assert result.answer.text == "颜色不一样确实让人失望。"
    assert result.merged_line == '【😔 LLM 情感判断:负面|高置信】→ "颜色不一样确实让人失望。"'
    assert user_text(engine.prompts[0]) == f"注意:失望\n{STORY}"
    assert user_text(engine.prompts[1]) == f"{STORY}\n(负面)"


async def test_the_decision_comes_first_then_the_tokens_then_the_end():
    events = [event async for event in pipeline(FakeEngine()).stream(Request(STORY, reply=True))]
    assert [type(event) for event in events] == [Decided, TextDelta, TextDelta, Done]
    assert [event.index for event in events if isinstance(event, TextDelta)] == [0, 1]


async def test_an_explanation_comes_behind_the_answer_and_names_what_moved_the_decision():
    engine = ByWord({"失望": {"负面": 0.8, "正面": 0.1, "中性": 0.1}})
    request = Request("很好,很失望", mode="sentiment", reply=True, explain=True)
    events = [event async for event in pipeline(engine).stream(request)]
    assert [type(event) for event in events] == [Decided, TextDelta, TextDelta, Explained, Done]
    explanation = events[-1].result.decision.explanation
    assert explanation == events[-2].explanation
    assert events[0].decision.explanation is None and events[0].decision.label == "negative"
    in_order = sorted(explanation.phrases, key=lambda phrase: phrase.start)
    assert "".join(phrase.text for phrase in in_order) == "很好,很失望"
    assert explanation.phrases[0].shown in "失望" and explanation.phrases[0].weight == pytest.approx(0.6)
    assert events[-1].result.decision.reason.startswith("支持“负面”的是“失”“望”")


async def test_of_a_long_text_only_the_beginning_is_divided():
    text = "好,不好," * 50_000
    explanation = (await run(FakeEngine(), Request(text, mode="sentiment", explain=True))).decision.explanation
    last = max(explanation.phrases, key=lambda phrase: phrase.start)
    assert last.start < 1_000 and last.start + len(last.text) == len(text)


@pytest.mark.parametrize(("text", "mode"), [("好", "sentiment"), ("你好", "chat")])
async def test_where_nothing_can_be_left_out_or_nothing_was_decided_there_is_no_reason(text, mode):
    result = await run(FakeEngine(), Request(text, mode=mode, explain=True))
    assert result.decision is None or (result.decision.explanation.phrases, result.decision.reason) == ((), None)


async def test_a_decision_alone_generates_nothing():
    engine = FakeEngine()
    result = await run(engine, Request(STORY, mode="sentiment"))
    assert result.answer is None
    assert engine.samplings == []


async def test_a_greeting_is_answered_and_with_reply_also_decided():
    assert (await run(FakeEngine(), Request("你好"))).decision is None
    both = await run(FakeEngine(), Request("你好", reply=True))
    assert (both.mode, both.route) == ("chat", "default chat")
    assert both.decision is not None
    assert both.answer.text == "你好"


async def test_a_decision_does_not_look_at_earlier_turns_and_an_answer_does():
    engine = FakeEngine()
    history = (Message("user", "昨天"), Message("assistant", "嗯"))
    await run(engine, Request(STORY, reply=True, history=history))
    assert [len(prompt.turns) for prompt in engine.prompts] == [0, 1]


async def test_a_request_overrides_the_sampling_of_its_task():
    engine = FakeEngine()
    wish = SamplingWish(max_tokens=7, seed=3)
    await run(engine, Request("你好", sampling=wish))
    sampling = engine.samplings[0]
    assert (sampling.max_tokens, sampling.seed) == (7, 3)
    assert sampling.temperature == TASKS["chat"].sampling.temperature


@pytest.mark.parametrize("wish", [SamplingWish(repetition_penalty=0.005), SamplingWish(max_tokens=1025)])
async def test_what_is_out_of_bounds_is_refused_before_a_decision_is_made(wish):
    engine = FakeEngine()
    with pytest.raises(InvalidRequest, match="must be"):
        await run(engine, Request(STORY, reply=True, sampling=wish))
    assert engine.call_ids == []


async def test_the_tokens_of_a_stream_are_the_answer_and_none_of_them_is_empty():
    engine = FakeEngine(pieces=("", "a", "", " b", "\n\n", "c", ""))
    *tokens, done = [event async for event in pipeline(engine).stream(Request("你好"))]
    assert [(token.index, token.text) for token in tokens] == [(0, "a"), (1, " b"), (2, "\n\n"), (3, "c")]
    assert done.result.answer.text == "a b\n\nc"


async def test_a_delta_lists_all_tokens_since_the_one_before():
    engine = FakeEngine(pieces=("", "a", "", " b", "", ""))
    *tokens, done = [event async for event in pipeline(engine).stream(Request("你好", top_logprobs=1))]
    assert [(token.text, [each.offset for each in token.logprobs]) for token in tokens] == [
        ("a", [0, 1]),
        (" b", [2, 3]),
        ("", [4, 5]),
    ]
    assert [token.index for token in tokens] == [0, 1, 2]
    assert done.result.answer.text == "a b"
    assert tokens[0].logprobs == (listed(0, 1), listed(1, 1))


@pytest.mark.parametrize("mode", ["auto", "chat", "sentiment"])
async def test_self_harm_is_answered_by_people_not_by_the_model(mode):
    engine = FakeEngine()
    result = await run(engine, Request("我不想活了", mode=mode, reply=True))
    assert result.answer.finish_reason == "fixed"
    assert "12356" in result.answer.text
    assert result.answer.safety == Safety("crisis", None, "words")
    assert engine.samplings == []


async def test_closing_the_stream_frees_the_engine():
    engine = FakeEngine(gate=asyncio.Event())
    stream = pipeline(engine).stream(Request("你好"))
    assert isinstance(await anext(stream), TextDelta)
    assert engine.open_streams == 1
    await stream.aclose()
    assert engine.open_streams == 0


@pytest.mark.parametrize("mode", ["sentiment", "chat"])
async def test_the_deadline_ends_the_work(mode):
    engine = FakeEngine(gate=asyncio.Event())
    with pytest.raises(DeadlineExceeded, match="timeout_s"):
        await run(engine, Request("你好", mode=mode, timeout_s=0.01))
    assert engine.open_streams == 0
    assert engine.cancelled == 1


@pytest.mark.parametrize("text", ["", "   ", "\n\t"])
async def test_an_empty_text_is_refused(text):
    with pytest.raises(InvalidRequest, match="at least one visible character"):
        await run(FakeEngine(), Request(text))


async def test_an_unknown_task_is_refused():
    with pytest.raises(UnknownTask):
        await run(FakeEngine(), Request("x", mode="poem"))


async def test_a_failure_of_the_engine_reaches_the_client_after_the_first_delta():
    engine = FakeEngine(error=EngineStopped("gone"), error_after=1)
    stream = pipeline(engine).stream(Request("你好"))
    assert isinstance(await anext(stream), TextDelta)
    with pytest.raises(EngineStopped):
        await anext(stream)
