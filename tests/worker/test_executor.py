"""What happens around the engine: safety before an answer, the first sentence, sentences of the text, calibration."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_aio.core import DecidedLabel, EngineRequest, Message, ModelIdentity, Rendering, SamplingWish, Task
from qwen_aio.errors import ContextExceeded
from qwen_aio.result import Answer, AnswerStart, Completion, Decision, EngineEvent, Safety, TextDelta, Truncation
from qwen_aio.safeguards import Calibration
from qwen_aio.tasks.loader import load_tasks
from qwen_aio.worker.execution.executor import LocalExecutor
from qwen_aio.worker.execution.safety import WINDOW_CHARS, WINDOW_STEP, windows
from tests.fakes import FAKE_MODEL, FakeEngine, user_text

TASKS = load_tasks(Path("prompts"))
SAFETY = TASKS["safety"]
LEAST = {"crisis": 0.4, "medical": 0.5}
THRESHOLDS = {FAKE_MODEL.sha: Calibration({}, thresholds={"zh": LEAST, "en": LEAST})}
CHECKING = {**TASKS, "safety": replace(SAFETY, calibration=THRESHOLDS)}
OPENING = TASKS["chat"].opening
assert OPENING is not None
OPENED = {**TASKS, "chat": replace(TASKS["chat"], opening=replace(OPENING, model=FAKE_MODEL.sha))}
CALM = {"平安": 0.9, "危机": 0.05, "急症": 0.05, "正面": 0.05, "中性": 0.03, "负面": 0.9}
BUNDLED = ModelIdentity("bundled", FAKE_MODEL.sha, is_bundled=True)


class Reader(FakeEngine):
    """Scores by a word in the text, and answers by the seed."""

    def __init__(
        self,
        words: Mapping[str, Mapping[str, float]] | None = None,
        *,
        by_seed: Mapping[int | None, Sequence[str]] | None = None,
        **more,
    ) -> None:
        super().__init__(probabilities=dict(CALM), **more)
        self._words = words or {}
        self._by_seed = by_seed or {}
        self.scored: list[str] = []
        self.is_asked = asyncio.Event()

    async def score(self, request_id, prompt, continuations):
        text = user_text(prompt)
        self.scored.append(text)
        self.is_asked.set()
        found = next((scores for word, scores in self._words.items() if word in text), CALM)
        self.probabilities = dict(found)
        return await super().score(request_id, prompt, continuations)

    def generate(self, request_id, prompt, sampling, **more):
        self.pieces = tuple(self._by_seed.get(sampling.seed, self.pieces))
        return super().generate(request_id, prompt, sampling, **more)


CRISIS = {"平安": 0.2, "危机": 0.7, "急症": 0.1}
MEDICAL = {"平安": 0.2, "危机": 0.1, "急症": 0.7}


class Desk:
    """An executor of a fake engine, and what it counted."""

    def __init__(self, engine: FakeEngine, tasks: Mapping[str, Task], model: ModelIdentity = FAKE_MODEL) -> None:
        self.counted: list[str] = []
        self.executor = LocalExecutor(
            engine, tasks, model=model, worker="w", record=lambda *_: None, count=self.counted.append
        )

    async def events(self, request: EngineRequest) -> list[EngineEvent]:
        async with aclosing(self.executor.execute(request)) as events:
            return [event async for event in events]

    async def answer(self, request: EngineRequest) -> Answer:
        *_, answer = await self.events(request)
        assert isinstance(answer, Answer)
        return answer


def chat(text: str, **more) -> EngineRequest:
    return EngineRequest("r", "chat", text, **more)


# ---- safety ----


@pytest.mark.parametrize(
    ("text", "language", "scores", "label"),
    [
        ("我吃了很多药", "zh", CRISIS, "crisis"),
        ("I took all of it 药", "en", CRISIS, "crisis"),
        ("他胸口疼，吃了药", "zh", MEDICAL, "medical"),
    ],
)
async def test_danger_gets_the_fixed_text_in_the_users_language_and_no_token_is_sampled(text, language, scores, label):
    engine = Reader({"药": scores})
    desk = Desk(engine, CHECKING)
    [answer] = await desk.events(chat(text))
    assert SAFETY.safety is not None
    assert isinstance(answer, Answer)
    assert answer.text == SAFETY.safety.replies[label][language]
    assert (answer.finish_reason, answer.safety) == ("fixed", Safety(label, pytest.approx(0.7), "model"))
    assert answer.usage.prompt_tokens == 95  # what the decision cost
    assert engine.samplings == []
    assert desk.counted == ["safety_replies"]


async def test_danger_is_found_in_every_window_of_a_long_text():
    filler = "今天天气很好，我去买了菜，晚上看了电影。" * 200
    answer = await Desk(Reader({"药": CRISIS}), CHECKING).answer(chat(filler + "我吃了很多药" + filler))
    assert answer.finish_reason == "fixed"


@pytest.mark.parametrize(("turns_ago", "finish_reason"), [(1, "fixed"), (2, "fixed"), (3, "stop")])
async def test_the_last_two_user_turns_are_read_too(turns_ago, finish_reason):
    later = [Message("user", "嗯"), Message("assistant", "我在。")] * (turns_ago - 1)
    history = (Message("user", "我吃了很多药"), Message("assistant", "我在。"), *later)
    answer = await Desk(Reader({"药": CRISIS}), CHECKING).answer(chat("算了", history=history))
    assert answer.finish_reason == finish_reason


@given(st.text(alphabet="危a机 \n", max_size=1500))
def test_windows_hold_every_character_and_every_short_piece_whole(text):
    pieces = windows(text)
    assert all(len(piece) <= WINDOW_CHARS for piece in pieces)
    reach = WINDOW_CHARS - WINDOW_STEP
    assert all(any(text[at : at + reach] in piece for piece in pieces) for at in range(len(text)))


async def test_turns_are_read_as_one_text_oldest_first():
    engine = Reader()
    history = (Message("user", "一"), Message("assistant", "x"), Message("user", "二"), Message("user", "三"))
    await Desk(engine, CHECKING).answer(chat("四", history=history))
    assert engine.scored == ["二\n三\n四"]


async def test_below_the_threshold_the_model_answers_and_the_answer_says_what_was_decided():
    answer = await Desk(Reader(), CHECKING).answer(chat("你好"))
    assert answer.text == "你好"
    assert answer.safety == Safety("ok", pytest.approx(0.9), "model")


async def test_a_model_without_thresholds_is_not_asked():
    engine = Reader({"药": CRISIS})
    desk = Desk(engine, TASKS)
    assert (await desk.answer(chat("我吃了很多药"))).safety == Safety("ok", None, "words")
    assert engine.scored == []
    assert desk.executor.safety_source == "words"
    assert Desk(engine, CHECKING).executor.safety_source == "model"


async def test_switched_off_nothing_is_said_of_safety():
    desk = Desk(Reader({"药": CRISIS}), {**TASKS, "safety": replace(CHECKING["safety"], safety=None)})
    assert (await desk.answer(chat("我吃了很多药"))).safety is None
    assert desk.executor.safety_source is None


async def test_an_answer_that_is_resumed_was_checked_where_it_began():
    engine = Reader({"药": CRISIS}, pieces=("不", "对", "。"))
    answer = await Desk(engine, {**CHECKING, **{"chat": OPENED["chat"]}}).answer(chat("我吃了很多药", resume=(0,)))
    assert answer.text == "对。"
    assert engine.scored == []


@given(
    sentences=st.lists(st.sampled_from(["真可惜", "手机坏了", "保修还在吗", "太好了", "嗯" * 170, "恭喜"]), max_size=4),
    mark=st.sampled_from(["。", "！", "……", ". "]),
    cuts=st.sets(st.integers(0, 60)),
)
async def test_an_answer_resumed_behind_any_delta_ends_as_it_would_have_ended(sentences, mark, cuts):
    text = "".join(sentence + mark for sentence in ["真遗憾", *sentences])
    ends = sorted({0, *(cut for cut in cuts if cut < len(text)), len(text)})
    pieces = [text[start:end] for start, end in itertools.pairwise(ends)]
    _, *deltas, answer = await Desk(Reader(pieces=pieces), OPENED).events(sad(sampling=SamplingWish(seed=5)))
    assert answer.text == "".join(delta.text for delta in deltas)
    for sent in range(1, len(deltas)):
        desk = Desk(Reader(pieces=pieces), OPENED)
        ids = tuple(id for delta in deltas[:sent] for id in delta.token_ids)
        start, *rest, end = await desk.events(sad(resume=ids, sampling=SamplingWish(seed=5)))
        assert start == AnswerStart(5, None)
        assert "".join(delta.text for delta in [*deltas[:sent], *rest]) == answer.text
        assert end.finish_reason == answer.finish_reason


async def test_closing_while_it_is_checked_ends_the_checks():
    engine = Reader(gate=asyncio.Event())
    desk = Desk(engine, CHECKING)
    text = "".join(chr(0x4E00 + number) for number in range(2000))
    running = asyncio.ensure_future(desk.answer(chat(text)))
    await engine.is_asked.wait()
    await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait({running})
    assert engine.cancelled == len(engine.scored) == 8  # no more at once


# ---- the first sentence ----

MISFIT, FITTING = ("太好了，", "恭喜！", "再说吧。"), ("真可惜，", "手机坏了。", "保修还在吗？")


def sad(**more) -> EngineRequest:
    return chat("手机坏了，心情很差", decided=DecidedLabel("sentiment", "negative"), **more)


async def test_a_first_sentence_that_fits_comes_at_once_and_whole():
    engine = Reader(by_seed={5: FITTING})
    desk = Desk(engine, OPENED)
    start, *deltas, answer = await desk.events(sad(sampling=SamplingWish(seed=5)))
    assert start == AnswerStart(5, Safety("ok", None, "words"))
    assert [delta.text for delta in deltas] == list(FITTING)
    assert answer.text == "真可惜，手机坏了。保修还在吗？"
    assert desk.counted == []


async def test_one_that_does_not_fit_is_drawn_again_with_the_next_seed():
    engine = Reader(by_seed={5: MISFIT, 6: FITTING})
    desk = Desk(engine, OPENED)
    start, *deltas, answer = await desk.events(sad(sampling=SamplingWish(seed=5)))
    assert start == AnswerStart(6, Safety("ok", None, "words"))
    assert answer.text == "".join(delta.text for delta in deltas) == "".join(FITTING)
    assert [sampling.seed for sampling in engine.samplings] == [5, 6]
    assert engine.open_streams == 0
    assert desk.counted == ["openings_refused"]


async def test_after_two_that_do_not_fit_there_is_a_neutral_sentence():
    desk = Desk(Reader(by_seed={5: MISFIT, 6: MISFIT}), OPENED)
    [answer] = await desk.events(sad(sampling=SamplingWish(seed=5)))
    assert isinstance(answer, Answer)
    assert (answer.text, answer.finish_reason) == (OPENING.instead["zh"], "fixed")
    assert desk.counted == ["openings_refused", "openings_refused", "openings_replaced"]


async def test_a_greedy_answer_is_not_drawn_again():
    engine = Reader(pieces=MISFIT)
    answer = await Desk(engine, OPENED).answer(sad(sampling=SamplingWish(temperature=0.0)))
    assert answer.text == OPENING.instead["zh"]
    assert len(engine.samplings) == 1


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        (("真可惜。", "太好了！", "再见。"), "真可惜。"),
        (("真可惜", "。太", "好了！再", "见。"), "真可惜。"),
        (("真可惜。再", "见。", "太好了！"), "真可惜。再见。"),
        (("真可惜。", "保修还在吗？", "恭喜"), "真可惜。保修还在吗？"),
        (("真可惜。", "保修还在吗？", "屏幕也坏了？"), "真可惜。保修还在吗？"),  # nobody spoke of a screen
        (("真可惜。", "手机多大了？", "嗯"), "真可惜。手机多大了？嗯"),
    ],
)
async def test_a_later_sentence_that_does_not_fit_ends_the_answer(pieces, text):
    engine = Reader(pieces=pieces)
    desk = Desk(engine, OPENED)
    _, *deltas, answer = await desk.events(sad())
    assert answer.text == "".join(delta.text for delta in deltas) == text
    assert answer.finish_reason == "stop"
    assert desk.counted == ([] if text == "".join(pieces) else ["answers_stopped"])
    assert len(engine.samplings) == 1
    assert engine.open_streams == 0


async def test_nothing_is_sent_before_the_first_sentence_has_ended():
    engine = Reader(pieces=("真", "可惜", "。手机"), gate=asyncio.Event())
    async with aclosing(Desk(engine, OPENED).executor.execute(sad())) as events:
        first = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        assert not first.done()
        engine.gate.set()
        assert isinstance(await first, AnswerStart)
        assert (await anext(events)).text == "真"
    assert engine.open_streams == 0


async def test_a_sentence_without_an_end_is_judged_by_its_beginning():
    events = await Desk(Reader(pieces=["哎"] * 400), OPENED).events(sad())
    assert sum(isinstance(event, TextDelta) for event in events) == 400


async def test_answers_of_another_model_are_not_held_back():
    answer = await Desk(Reader(pieces=MISFIT), TASKS).answer(sad())
    assert answer.text == "".join(MISFIT)


# ---- sentences of the text ----

NOTICE = "图书馆二十号起改时间。下午三点半开门。晚上九点半关门。别的不变。"


async def test_the_bundled_model_sums_up_by_quoting_and_says_so():
    engine = Reader()
    answer = await Desk(engine, TASKS, BUNDLED).answer(EngineRequest("r", "summarize", NOTICE))
    assert answer.finish_reason == "extracted"
    assert answer.text in NOTICE
    assert answer.usage.completion_tokens == 0
    assert engine.samplings == []


@pytest.mark.parametrize(
    ("method", "model", "finish_reason"),
    [
        ("auto", FAKE_MODEL, "stop"),
        ("generate", BUNDLED, "stop"),
        ("extract", FAKE_MODEL, "extracted"),
    ],
)
async def test_the_task_says_how_it_is_summed_up(method, model, finish_reason):
    tasks = {**TASKS, "summarize": replace(TASKS["summarize"], method=method)}
    answer = await Desk(Reader(), tasks, model).answer(EngineRequest("r", "summarize", NOTICE))
    assert answer.finish_reason == finish_reason


# ---- calibration ----


async def test_a_decision_is_calibrated_by_its_language_for_this_model():
    calibration = {FAKE_MODEL.sha: Calibration({"zh": 2.0})}
    desk = Desk(Reader(), {**TASKS, "sentiment": replace(TASKS["sentiment"], calibration=calibration)})
    decided = {text: await _decision(desk, text) for text in ("太慢了", "too slow")}
    assert decided["太慢了"].calibrated
    assert not decided["too slow"].calibrated
    assert decided["太慢了"].probability < decided["too slow"].probability
    assert decided["太慢了"].label == decided["too slow"].label == "negative"
    assert sum(decided["太慢了"].scores.values()) == pytest.approx(1)


async def test_without_a_calibration_for_this_model_nothing_changes():
    calibration = {"f" * 16: Calibration({"zh": 2.0, "en": 2.0})}
    plain = await _decision(Desk(Reader(), TASKS), "太慢了")
    other = {**TASKS, "sentiment": replace(TASKS["sentiment"], calibration=calibration)}
    assert await _decision(Desk(Reader(), other), "太慢了") == plain


async def _decision(desk: Desk, text: str) -> Decision:
    [decision] = await desk.events(EngineRequest("r", "sentiment", text))
    assert isinstance(decision, Decision)
    return decision


# ---- prompts that are not rendered as their task says ----


@pytest.mark.parametrize("style", ["chat", "completion"])
async def test_the_opening_is_checked_only_in_a_tasks_own_style(style):
    engine = FakeEngine(pieces=("【情感】",))
    answer = await Desk(engine, OPENED).answer(chat("Ｈi ", rendering=Rendering(style)))
    assert (answer.text, len(engine.samplings)) == ("【情感】", 1)
    assert user_text(engine.prompts[0]) == "Ｈi "  # nothing is evened out
    replaced = await Desk(engine, OPENED).answer(chat("Ｈi "))
    assert (replaced.finish_reason, user_text(engine.prompts[-1])) == ("fixed", "Hi")


@pytest.mark.parametrize("style", ["chat", "completion"])
async def test_safety_is_decided_in_every_style(style):
    engine = Reader({"药": CRISIS})
    answer = await Desk(engine, CHECKING).answer(chat("我吃了很多药", rendering=Rendering(style)))
    assert (answer.finish_reason, engine.samplings) == ("fixed", [])


async def test_only_a_tasks_own_style_quotes():
    extracting = {**TASKS, "chat": replace(TASKS["chat"], method="extract")}
    for style, finish_reason in (("task", "extracted"), ("chat", "stop")):
        answer = await Desk(FakeEngine(), extracting).answer(chat("一。二。", rendering=Rendering(style)))
        assert answer.finish_reason == finish_reason


async def test_a_text_too_long_to_quote_from_is_refused_where_nothing_may_be_cut():
    text = "一句话。" * 6000
    request = EngineRequest("r", "summarize", text, rendering=Rendering(on_overflow="error"))
    with pytest.raises(ContextExceeded):
        await Desk(Reader(), TASKS, BUNDLED).answer(request)


async def test_where_nothing_may_be_cut_the_engine_is_told_but_not_for_windows_of_safety():
    engine = Reader()
    whole = Rendering(on_overflow="error")
    await Desk(engine, CHECKING).answer(chat("你好", rendering=whole))
    await Desk(engine, CHECKING).events(EngineRequest("r", "sentiment", "你好", rendering=whole))
    assert [prompt.must_fit for prompt in engine.prompts] == [False, True, True]


# ---- texts that do not fit ----


class Cutting(FakeEngine):
    """Reads less than it is given."""

    async def score(self, request_id, prompt, continuations):
        return replace(await super().score(request_id, prompt, continuations), truncation=Truncation(truncated=True))

    async def generate(self, request_id, prompt, sampling, **more):
        async with aclosing(super().generate(request_id, prompt, sampling, **more)) as outputs:
            async for output in outputs:
                is_end = isinstance(output, Completion)
                yield replace(output, truncation=Truncation(dropped_turns=1)) if is_end else output


@pytest.mark.parametrize(("task", "read"), [("sentiment", 95), ("chat", 60)])
async def test_usage_counts_what_came_in_before_the_cut(task, read):
    cutting, whole = Desk(Cutting(), TASKS), Desk(FakeEngine(), TASKS)
    request = EngineRequest("r", task, "哎呀" * 250)
    came_in = len(await whole.executor.tokenize(request))
    [*_, found] = await cutting.events(request)
    assert (found.usage.prompt_tokens, found.usage.cut_tokens) == (came_in, came_in - read)
    [*_, found] = await whole.events(request)
    assert (found.usage.prompt_tokens, found.usage.cut_tokens) == (read, 0)
