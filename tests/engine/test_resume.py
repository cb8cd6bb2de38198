"""An answer begun by another engine continues as the original would, after any token."""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_aio.core import Sampling
from qwen_aio.engine.config import EngineLimits
from qwen_aio.engine.engine import Engine
from qwen_aio.engine.requests import Generate
from qwen_aio.engine.scheduling.answer_sequence import AnswerSequence
from qwen_aio.engine.service import EngineService
from qwen_aio.engine.text.tokenizer import Tokenizer
from qwen_aio.engine.text.truncation import Truncated
from qwen_aio.errors import InvalidRequest
from qwen_aio.result import Completion, FinishReason, TextDelta, Truncation
from tests.engine.exact_model import ExactModel
from tests.engine.running import GREEDY, completion_of, deltas_of, ids_of, prompt, run, text_of

MakeEngine = Callable[..., Engine]
FREE = Sampling(max_tokens=24, temperature=1.3, top_p=1, top_k=0, repetition_penalty=1, seed=4)
LIMITS = EngineLimits(max_context=256, kv_mb=1)
SMALL_TEXT = st.text(alphabet="ab你😊 \n", min_size=1, max_size=20)
STOPS = st.lists(st.text(alphabet="ab你😊 \n", min_size=1, max_size=4), max_size=3)

pytestmark = pytest.mark.usefixtures("over_both_kernels")


def told_before(deltas: Sequence[TextDelta], cut: int) -> str:
    """The text that went out because of the first `cut` tokens."""
    text, num_tokens = "", 0
    for delta in deltas:
        num_tokens += len(delta.token_ids)
        if num_tokens > cut:
            break
        text += delta.text
    return text


def ending(completion: Completion) -> tuple[FinishReason, int, int]:
    """All of it but for what was cached and how long it took."""
    usage = completion.usage
    return completion.finish_reason, usage.prompt_tokens, usage.completion_tokens


def check_every_cut(text: str, sampling: Sampling, *, first: Engine, second: Engine) -> None:
    whole = run(first, {"whole": Generate(prompt(text), sampling)})["whole"]
    ids = ids_of(whole)
    works = {str(cut): Generate(prompt(text), sampling, tuple(ids[:cut])) for cut in range(len(ids))}
    outputs = run(second, works)
    for cut in range(len(ids)):
        rest = outputs[str(cut)]
        assert ids_of(rest) == ids[cut:]
        assert told_before(deltas_of(whole), cut) + text_of(rest) == text_of(whole)
        assert ending(completion_of(rest)) == ending(completion_of(whole))


# ---- with a model: the right tokens follow ----


@settings(max_examples=30)
@given(
    text=st.text(max_size=12),
    temperature=st.sampled_from([0.0, 0.8, 1.5]),
    penalty=st.sampled_from([1.0, 1.3]),
    counted=st.sampled_from([0.0, 1.5]),
    seed=st.integers(0, 2**63 - 1),
    max_tokens=st.integers(1, 30),
    max_batch_tokens=st.sampled_from([256, 9]),
)
def test_cut_at_any_token_the_rest_is_what_it_would_have_been(
    tokenizer: Tokenizer,
    text: str,
    temperature: float,
    penalty: float,
    counted: float,
    seed: int,
    max_tokens: int,
    max_batch_tokens: int,
) -> None:
    sampling = Sampling(
        max_tokens,
        temperature,
        top_p=0.95,
        top_k=50,
        repetition_penalty=penalty,
        seed=seed,
        presence_penalty=counted,
        frequency_penalty=counted,
    )
    first = Engine(ExactModel(), tokenizer, LIMITS)
    second = Engine(ExactModel(), tokenizer, replace(LIMITS, max_batch_tokens=max_batch_tokens))
    check_every_cut(text, sampling, first=first, second=second)


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_cut_at_any_token_a_real_model_goes_on_as_it_would_have(make_engine: MakeEngine, temperature: float) -> None:
    sampling = Sampling(20, temperature, top_p=1, top_k=5, repetition_penalty=1.2, seed=5)
    check_every_cut("谢谢", sampling, first=make_engine(), second=make_engine())


def test_the_rest_is_the_same_where_the_prefix_is_cached(tokenizer: Tokenizer) -> None:
    engine = Engine(ExactModel(), tokenizer, LIMITS)
    check_every_cut("你好", FREE, first=engine, second=engine)
    ids = ids_of(run(engine, {"a": Generate(prompt("你好"), FREE)})["a"])
    usage = completion_of(run(engine, {"a": Generate(prompt("你好"), FREE, tuple(ids[:20]))})["a"]).usage
    assert usage.cached_tokens == usage.prompt_tokens  # of the prompt, not of the answer


def test_a_stop_string_is_found_although_it_began_before_the_cut(tokenizer: Tokenizer) -> None:
    first, second = (Engine(ExactModel(), tokenizer, LIMITS) for _ in range(2))
    text = text_of(run(first, {"a": Generate(prompt("你好"), FREE)})["a"])
    stopping = replace(FREE, stop=(text[1:4],))
    check_every_cut("你好", stopping, first=first, second=second)
    whole = run(first, {"a": Generate(prompt("你好"), stopping)})["a"]
    assert completion_of(whole).finish_reason == "stop"
    held = [cut for cut in range(len(ids_of(whole))) if len(told_before(deltas_of(whole), cut)) == 1]
    assert len(held) > 1  # the cuts did fall into it


# ---- without a model: the right text comes of any tokens ----


def answer(tokenizer: Tokenizer, sampling: Sampling, *, resume: Sequence[int] = ()) -> AnswerSequence:
    return AnswerSequence(
        "a",
        Truncated((1, 2, 3), Truncation()),
        sampling=sampling,
        seed=0,
        resume=resume,
        tokenizer=tokenizer,
        end_ids=tokenizer.end_ids,
        arrived_s=0.0,
    )


def told(answer: AnswerSequence, ids: Sequence[int]) -> tuple[list[TextDelta], Completion | None]:
    """The outputs when the model chooses `ids`; it is not asked again once the answer ends."""
    items: list[TextDelta | Completion] = []
    for token in ids:
        if not answer.is_finished:
            items.extend(answer.accept(token, now_s=0.0))
    deltas = [item for item in items if isinstance(item, TextDelta)]
    [completion] = items[len(deltas) :] or [None]
    return deltas, completion


@given(data=st.data(), cut=st.integers(0, 30))
def test_of_any_tokens_the_pieces_are_the_text_without_white_space_around_it(
    tokenizer: Tokenizer, data: st.DataObject, cut: int
) -> None:
    blank = [token for token in tokenizer.text_ids if tokenizer.token_bytes(token).isspace()]
    ids = data.draw(st.lists(st.sampled_from(sorted(tokenizer.text_ids)) | st.sampled_from(blank), min_size=1))
    sampling = Sampling(max_tokens=len(ids))
    pieces, _ = told(answer(tokenizer, sampling), ids)
    raw = b"".join(tokenizer.token_bytes(token) for token in ids)
    assert (
        "".join(piece.text for piece in pieces) == codecs.getincrementaldecoder("utf-8")("replace").decode(raw).strip()
    )
    assert [piece.token_ids for piece in pieces] == [(token,) for token in ids]
    rest, _ = told(answer(tokenizer, sampling, resume=ids[:cut]), ids[cut:])
    assert [piece.text for piece in rest] == [piece.text for piece in pieces[cut:]]


@given(text=st.one_of(st.text(min_size=1, max_size=20), SMALL_TEXT), stop=STOPS, ends=st.booleans(), data=st.data())
def test_cut_inside_a_character_or_a_stop_string_the_text_has_no_gap_and_no_repeat(
    tokenizer: Tokenizer, text: str, stop: list[str], ends: bool, data: st.DataObject
) -> None:
    # A byte a token, so that a cut can fall anywhere.
    bytes_of = {tokenizer.token_bytes(token): token for token in tokenizer.text_ids}
    ids = [bytes_of[bytes([byte])] for byte in text.encode()] + sorted(tokenizer.end_ids)[:1] * ends
    sampling = Sampling(max_tokens=len(ids), stop=tuple(stop))
    begun = answer(tokenizer, sampling)
    whole, end = told(begun, ids)
    cut = data.draw(st.integers(0, begun.num_generated - 1))
    resumed = answer(tokenizer, sampling, resume=ids[:cut])
    rest, its_end = told(resumed, ids[cut:])
    assert told_before(whole, cut) + "".join(delta.text for delta in rest) == "".join(delta.text for delta in whole)
    assert ending(its_end) == ending(end)
    assert [token for delta in rest for token in delta.token_ids] == ids[cut : begun.num_generated]
    assert resumed.seen_ids.tolist() == resumed.ids == begun.seen_ids.tolist()


# ---- what cannot be resumed ----


def refused(engine: Engine, sampling: Sampling, resume: Sequence[int], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words) as caught:
        engine.add("a", Generate(prompt("你好"), sampling, tuple(resume)), arrived_s=0.0)
    assert caught.value.param == "resume"
    assert not engine.has_work


def test_tokens_that_no_answer_holds_are_refused(engine: Engine, tokenizer: Tokenizer) -> None:
    [start] = tokenizer.added_ids - tokenizer.end_ids
    for foreign in (start, tokenizer.vocab_size, 639, 2**31 - 1, -1):
        refused(engine, GREEDY, [40, foreign], f"no token {foreign}")


def test_a_finished_answer_is_not_resumed(engine: Engine, tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode_text("thank you, bye")
    assert len(ids) < GREEDY.max_tokens
    refused(engine, replace(GREEDY, max_tokens=2), ids, "over after 2 of the")
    refused(engine, replace(GREEDY, stop=("you",)), ids, "finish_reason stop")
    for end in tokenizer.end_ids:
        refused(engine, GREEDY, [end, *ids], "over after 1 of the")


def test_an_answer_resumed_after_its_last_token_is_a_completion_alone(engine: Engine, tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode_text("thank you")
    full = Generate(prompt("hi"), replace(GREEDY, max_tokens=len(ids)), tuple(ids))
    ended = Generate(prompt("hi"), GREEDY, (*ids, min(tokenizer.end_ids)))
    outputs = run(engine, {"full": full, "ended": ended})
    for name, reason, num_tokens in (("full", "length", len(ids)), ("ended", "stop", len(ids) + 1)):
        assert deltas_of(outputs[name]) == []
        completion = completion_of(outputs[name])
        assert completion.finish_reason == reason
        assert completion.usage.completion_tokens == num_tokens
    assert not engine.has_work


async def test_the_service_resumes_it_at_any_token(tokenizer: Tokenizer) -> None:
    service = EngineService(Engine(ExactModel(), tokenizer, LIMITS))
    service.start()
    *whole, end = [item async for item in service.generate("a", prompt("你好"), FREE)]
    ids = [token for delta in whole for token in delta.token_ids]
    for cut in range(len(ids)):
        assert service.decode(ids[:cut], stop=FREE.stop) == "".join(delta.text for delta in whole[:cut])
    async with asyncio.timeout(60):
        for cut in (7, len(ids)):
            *rest, its_end = [item async for item in service.generate("b", prompt("你好"), FREE, resume=ids[:cut])]
            assert [token for delta in rest for token in delta.token_ids] == ids[cut:]
            assert its_end.finish_reason == end.finish_reason
        with pytest.raises(InvalidRequest, match="is over after"):
            await anext(service.generate("c", prompt("你好"), FREE, resume=[*ids, ids[0]]))
    await service.close()
