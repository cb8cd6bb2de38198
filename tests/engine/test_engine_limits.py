"""What one request may ask of the whole engine: truncation, refusals, timings."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from qwen_aio.core import Sampling
from qwen_aio.engine.config import EngineLimits
from qwen_aio.engine.engine import Engine
from qwen_aio.engine.load import load_engine
from qwen_aio.engine.requests import Generate, Pin, Score, Work
from qwen_aio.errors import ContextTooSmall, InvalidRequest, InvalidSettings
from qwen_aio.result import Truncation
from tests.engine.running import GREEDY, completion_of, finish, generate, prompt, run, score, scores_of, turn

MakeEngine = Callable[..., Engine]


def test_a_long_text_loses_its_middle_and_says_so(engine: Engine) -> None:
    scores = scores_of(run(engine, {"a": score("the parcel arrived today, " * 40_000)})["a"])
    assert scores.truncation == Truncation(truncated=True)
    assert scores.usage.prompt_tokens == 256


def test_a_long_conversation_loses_its_oldest_turns_and_says_so(engine: Engine) -> None:
    turns = tuple((*turn("user", f"number {n}: 你好"), *turn("assistant", "the colour")) for n in range(50))
    completion = completion_of(run(engine, {"a": Generate(prompt("谢谢", turns=turns), GREEDY)})["a"])
    assert 30 < completion.truncation.dropped_turns < 50
    assert not completion.truncation.truncated
    assert completion.usage.prompt_tokens + GREEDY.max_tokens <= 256


@pytest.mark.parametrize(
    ("work", "error", "words"),
    [
        (generate("x", Sampling(max_tokens=129)), InvalidRequest, "max_tokens must be 1 to 128"),
        (generate("x", Sampling(max_tokens=0)), InvalidRequest, "max_tokens"),
        (generate("x", Sampling(8, temperature=float("nan"))), InvalidRequest, "temperature"),
        (generate("x", Sampling(8, top_p=0)), InvalidRequest, "top_p"),
        (generate("x", Sampling(8, top_k=-1)), InvalidRequest, "top_k"),
        (generate("x", Sampling(8, repetition_penalty=0)), InvalidRequest, "repetition_penalty"),
        (generate("x", Sampling(8, stop=("ok", ""))), InvalidRequest, "stop"),
        (generate("half a pair \ud83d"), InvalidRequest, "lone surrogate"),
        (Score(prompt("x"), ()), InvalidRequest, "nothing to score"),
        (Score(prompt("x"), ("正面", "")), InvalidRequest, "empty continuation"),
        (Score(prompt("x"), ("the colour " * 200,)), InvalidRequest, "continuations take"),
        (Generate(prompt("x", system="the colour " * 200), GREEDY), ContextTooSmall, "leave 0 tokens"),
        (Pin(()), InvalidRequest, "empty beginning"),
    ],
)
def test_what_cannot_be_done_is_refused_at_once(engine: Engine, work: Work, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        engine.add("a", work, arrived_s=0.0)
    assert not engine.has_work


def test_too_little_memory_for_any_text_is_refused(make_engine: MakeEngine) -> None:
    with pytest.raises(InvalidSettings, match="--kv-mb"):
        make_engine(kv_mb=0)


def test_timings_add_up_by_the_engine_s_own_clock(checkpoint) -> None:
    engine = load_engine(checkpoint, EngineLimits(max_context=256, kv_mb=1), threads=1)
    ticks = iter(range(10_000))
    engine.clock = lambda: float(next(ticks))
    engine.add("a", generate("你好"), arrived_s=-5.0)
    timings = completion_of(finish(engine)["a"]).timings
    assert timings.queue_ms == 5000.0
    assert timings.total_ms == timings.queue_ms + timings.prefill_ms + timings.decode_ms
    assert timings.decode_ms > timings.prefill_ms > 0
