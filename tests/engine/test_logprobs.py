"""Log probabilities of an answer's tokens: by the model alone, and of every token but the end."""

from __future__ import annotations

import codecs
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_aio.core import Sampling
from qwen_aio.engine.config import EngineLimits
from qwen_aio.engine.engine import Engine
from qwen_aio.engine.requests import Generate, Output
from qwen_aio.engine.sampler import LEAST_LOGPROB, Sampler
from qwen_aio.engine.scheduling.answer_sequence import AnswerSequence
from qwen_aio.engine.text.tokenizer import Tokenizer
from qwen_aio.engine.text.truncation import Truncated
from qwen_aio.result import SampledToken, TextDelta, TokenLogprob, Truncation
from tests.engine.exact_model import ExactModel
from tests.engine.repeating_model import RepeatingModel
from tests.engine.running import deltas_of, ids_of, prompt, run, text_of
from tests.fakes import FakeClock

LIMITS = EngineLimits(max_context=256, kv_mb=1)
SAMPLED = Sampling(max_tokens=24, temperature=1.3, top_p=0.9, top_k=40, repetition_penalty=1.2, seed=4)
COUNTED = replace(SAMPLED, presence_penalty=0.5, frequency_penalty=0.5)


def answered(engine: Engine, sampling: Sampling, count: int | None, resume: tuple[int, ...] = ()) -> list[Output]:
    return run(engine, {"a": Generate(prompt("你好"), sampling, resume, count)})["a"]


def tokens_of(outputs: list[Output]) -> list[SampledToken]:
    return [token for delta in deltas_of(outputs) for token in delta.logprobs]


# ---- of one row ----


@given(
    st.lists(st.floats(-50, 50, width=32), min_size=30, max_size=30), st.integers(0, 40), st.sampled_from([2, 3, 5, 7])
)
def test_they_are_the_logarithm_of_the_softmax_over_all_logits(logits: list[float], count: int, token: int) -> None:
    exact = np.array(logits) - np.logaddexp.reduce(np.array(logits))
    ranked = Sampler([2, 3, 5, 7], vocab_size=30).ranked(np.array(logits, np.float32), count=count, token=token)
    np.testing.assert_allclose([*ranked.values()], exact[[*ranked]], atol=1e-4)
    best = sorted((logits[each] for each in (2, 3, 5, 7)), reverse=True)[:count]
    np.testing.assert_allclose([logits[each] for each in ranked][: len(best)], best, atol=1e-4)
    assert [*ranked][len(best) :] in ([], [token])
    assert token in ranked


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_becomes_the_least_one(odd: float) -> None:
    ranked = Sampler([2, 3], vocab_size=4).ranked(np.full(4, odd, np.float32), count=1, token=3)
    assert {*ranked.values()} == {LEAST_LOGPROB}


# ---- of an answer ----


@pytest.mark.parametrize("count", [0, 3, 20])
@pytest.mark.parametrize("sampling", [SAMPLED, COUNTED])
def test_every_token_is_listed_with_as_many_others_as_asked_for(
    tokenizer: Tokenizer, sampling: Sampling, count: int
) -> None:
    outputs = answered(Engine(ExactModel(), tokenizer, LIMITS), sampling, count)
    listed = tokens_of(outputs)
    ids = [token for token in ids_of(outputs) if token not in tokenizer.end_ids]
    assert [each.token.utf8 for each in listed] == [tuple(tokenizer.token_bytes(token)) for token in ids]
    assert [len(each.top) for each in listed] == [count] * len(ids)
    for each in listed:
        best = [other.logprob for other in each.top]
        assert best == sorted(best, reverse=True)
        assert not best or each.token in each.top or each.token.logprob <= best[-1]


def test_neither_temperature_nor_penalties_change_them(tokenizer: Tokenizer) -> None:
    """The first token's: later ones follow other tokens."""
    samplings = [SAMPLED, COUNTED, replace(SAMPLED, temperature=0), replace(SAMPLED, repetition_penalty=5)]
    firsts = [tokens_of(answered(Engine(ExactModel(), tokenizer, LIMITS), each, 5))[0].top for each in samplings]
    assert firsts == [firsts[0]] * len(samplings)


@pytest.mark.parametrize("sampling", [SAMPLED, COUNTED, replace(SAMPLED, temperature=0)])
def test_who_asks_for_them_gets_the_same_answer_and_who_does_not_gets_none(
    tokenizer: Tokenizer, sampling: Sampling
) -> None:
    asked, unasked = (answered(Engine(ExactModel(), tokenizer, LIMITS), sampling, count) for count in (2, None))
    assert (ids_of(asked), text_of(asked)) == (ids_of(unasked), text_of(unasked))
    assert tokens_of(unasked) == []


def test_a_drafted_token_has_the_same_as_one_that_was_not(tokenizer: Tokenizer) -> None:
    repeating = replace(SAMPLED, temperature=0.3, repetition_penalty=1, max_tokens=60)
    drafting = Engine(RepeatingModel(), tokenizer, LIMITS, clock=FakeClock())
    plain = Engine(RepeatingModel(), tokenizer, replace(LIMITS, max_draft_rows=0))
    assert tokens_of(answered(drafting, repeating, 2)) == tokens_of(answered(plain, repeating, 2))
    assert drafting.counters.accepted_tokens > 0


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32), cut=st.integers(0, 23))
def test_a_resumed_answer_lists_what_follows(tokenizer: Tokenizer, seed: int, cut: int) -> None:
    sampling = replace(COUNTED, seed=seed)
    whole = answered(Engine(ExactModel(), tokenizer, LIMITS), sampling, 1)
    ids = ids_of(whole)
    rest = answered(Engine(ExactModel(), tokenizer, LIMITS), sampling, 1, tuple(ids[: min(cut, len(ids) - 1)]))
    assert tokens_of(rest) == tokens_of(whole)[min(cut, len(ids) - 1) :]


# ---- of given tokens ----


def begun(tokenizer: Tokenizer) -> AnswerSequence:
    return AnswerSequence(
        "a",
        Truncated((1, 2, 3), Truncation()),
        sampling=Sampling(max_tokens=500),
        seed=0,
        resume=(),
        tokenizer=tokenizer,
        end_ids=tokenizer.end_ids,
        arrived_s=0.0,
        top_logprobs=1,
    )


def accepted(answer: AnswerSequence, token: int, logprobs: dict[int, float]) -> tuple[SampledToken, ...]:
    delta, *_ = answer.accept(token, now_s=0.0, logprobs=logprobs)
    assert isinstance(delta, TextDelta)
    return delta.logprobs


@given(text=st.text(max_size=30) | st.text(alphabet="ab你😊 <\n", max_size=30))
def test_an_offset_counts_the_characters_of_the_answer_before_the_token(tokenizer: Tokenizer, text: str) -> None:
    answer, before = begun(tokenizer), b""
    for token in tokenizer.encode_text(text):
        [listed] = accepted(answer, token, {token: -1.0})
        shown = codecs.getincrementaldecoder("utf-8")().decode(before)
        assert listed.offset == len(shown.lstrip())  # white space at the beginning is no part of an answer
        before += tokenizer.token_bytes(token)


def test_a_part_of_a_character_is_escaped_and_a_control_token_has_no_bytes(tokenizer: Tokenizer) -> None:
    [part] = [token for token in tokenizer.text_ids if tokenizer.token_bytes(token) == b"\xe4"]
    [end] = [token for token in tokenizer.end_ids if token == tokenizer.control_id("<|im_end|>")]
    answer = begun(tokenizer)
    expected = SampledToken(TokenLogprob("\\xe4", (0xE4,), -2.0), (TokenLogprob("<|im_end|>", None, -0.5),), offset=0)
    assert accepted(answer, part, {end: -0.5, part: -2.0}) == (expected,)
    assert accepted(answer, end, {end: -0.5}) == ()  # the end is no part of the text
