"""Draft tokens are computed together with the newest one; only the clock shows a difference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_aio.core import Sampling
from qwen_aio.engine.config import EngineLimits
from qwen_aio.engine.engine import Engine
from qwen_aio.engine.requests import Generate, Output, Score, Work
from qwen_aio.engine.scheduling.answer_sequence import AnswerSequence
from qwen_aio.engine.scheduling.drafter import Drafter
from qwen_aio.engine.scheduling.scheduler import Span
from qwen_aio.engine.scheduling.sequence import Sequence
from qwen_aio.engine.text.tokenizer import Tokenizer
from qwen_aio.engine.text.truncation import Truncated
from qwen_aio.result import Truncation
from tests.engine.repeating_model import RepeatingModel
from tests.engine.running import completion_of, finish, generate, ids_of, logprobs_of, prompt, run, score, text_of
from tests.fakes import FakeClock

LIMITS = EngineLimits(max_context=256, kv_mb=1)
QUOTE = "the parcel arrived today and the colour is not like the picture. the parcel arrived today and"
GREEDY = Sampling(max_tokens=60, temperature=0, repetition_penalty=1)
SAMPLED = Sampling(max_tokens=60, temperature=0.5, top_p=0.95, top_k=30, repetition_penalty=1.05, seed=7)
COUNTED = replace(SAMPLED, presence_penalty=0.5, frequency_penalty=0.1)


def make(tokenizer: Tokenizer, *, limits: EngineLimits = LIMITS, model: RepeatingModel | None = None) -> Engine:
    """Its clock stands still: one more row costs nothing, so drafting depends on no machine."""
    return Engine(model or RepeatingModel(), tokenizer, limits, clock=FakeClock())


def plain(tokenizer: Tokenizer, limits: EngineLimits = LIMITS) -> Engine:
    return make(tokenizer, limits=replace(limits, max_draft_rows=0))


def told(outputs: list[Output], work: Work) -> object:
    """All that a request got, except the number of deltas, of cached tokens, and the timings."""
    if isinstance(work, Score):
        return logprobs_of(outputs)
    end = completion_of(outputs)
    usage = end.usage
    return ids_of(outputs), text_of(outputs), end.finish_reason, usage.prompt_tokens, usage.completion_tokens


def all_told(outputs: Mapping[str, list[Output]], works: Mapping[str, Work]) -> dict[str, object]:
    return {name: told(outputs[name], works[name]) for name in outputs}


# ---- the output does not change ----


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED, replace(SAMPLED, temperature=1.2), COUNTED])
def test_an_answer_is_the_same_in_fewer_steps(tokenizer: Tokenizer, sampling: Sampling) -> None:
    works = {"a": generate(QUOTE, sampling)}
    drafting, without = make(tokenizer), plain(tokenizer)
    assert all_told(run(drafting, works), works) == all_told(run(without, works), works)
    counters = drafting.counters
    assert 0 < counters.accepted_tokens < counters.draft_tokens  # some came true, some did not
    assert counters.steps == without.counters.steps - counters.accepted_tokens
    assert counters.generated_tokens == without.counters.generated_tokens
    assert without.counters.draft_tokens == 0


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED])
def test_a_stop_string_inside_a_draft_ends_the_answer_there(tokenizer: Tokenizer, sampling: Sampling) -> None:
    text = text_of(run(plain(tokenizer), {"a": generate(QUOTE, sampling)})["a"])
    works = {
        f"{end}": generate(QUOTE, replace(sampling, stop=(text[end - 8 : end],))) for end in range(8, len(text) + 1, 3)
    }
    engine = make(tokenizer)
    outputs = {name: run(engine, {name: work})[name] for name, work in works.items()}
    assert all_told(outputs, works) == all_told(run(plain(tokenizer), works), works)
    assert engine.counters.accepted_tokens > 0


SAMPLINGS = st.builds(
    Sampling,
    max_tokens=st.integers(1, 50),
    temperature=st.sampled_from([0.0, 0.4, 0.8]),
    top_p=st.sampled_from([0.9, 1.0]),
    top_k=st.sampled_from([0, 20]),
    repetition_penalty=st.sampled_from([1.0, 1.1]),
    stop=st.sampled_from([(), ("e",), ("色", "th")]),
    seed=st.integers(0, 2**32),
    presence_penalty=st.sampled_from([0.0, 0.5]),
    frequency_penalty=st.sampled_from([0.0, 0.1, -0.5]),
)
TEXTS = st.builds("".join, st.lists(st.sampled_from(["the parcel ", "颜色和图片", "ok ", QUOTE]), max_size=5))
WORKS = st.lists(
    st.one_of(st.builds(generate, TEXTS, SAMPLINGS), st.builds(generate, TEXTS, SAMPLINGS), st.builds(score, TEXTS)),
    min_size=1,
    max_size=8,
).map(lambda works: {f"{number}": work for number, work in enumerate(works)})


@settings(max_examples=40, deadline=None)
@given(works=WORKS, max_batch_tokens=st.sampled_from([256, 24, 9]), max_draft_rows=st.integers(1, 12))
def test_many_at_once_get_what_they_would_have_got(
    tokenizer: Tokenizer, works: dict[str, Work], max_batch_tokens: int, max_draft_rows: int
) -> None:
    limits = replace(LIMITS, max_batch_tokens=max_batch_tokens, max_draft_rows=max_draft_rows)
    outputs = run(make(tokenizer, limits=limits), works)
    assert all_told(outputs, works) == all_told(run(plain(tokenizer), works), works)


@settings(max_examples=40, deadline=None)
@given(works=WORKS, data=st.data())
def test_arrivals_and_aborts_at_any_step_leave_a_correct_state(
    tokenizer: Tokenizer, works: dict[str, Work], data: st.DataObject
) -> None:
    engine = make(tokenizer)
    outputs: dict[str, list[Output]] = {}
    aborted = set()
    for name, work in works.items():
        engine.add(name, work, arrived_s=0.0)
        for _ in range(data.draw(st.integers(0, 6))):
            for output in engine.step():
                outputs.setdefault(output.request_id, []).append(output)
            engine.check_integrity()
        aborted |= {data.draw(st.sampled_from(sorted(works)))} if data.draw(st.booleans()) else set()
        for gone in aborted:
            engine.abort(gone)
        engine.check_integrity()
    for name, rest in finish(engine).items():
        outputs.setdefault(name, []).extend(rest)
    whole = {name: each for name, each in outputs.items() if each[-1].is_last}
    expected = all_told(run(plain(tokenizer), works), works)
    assert set(whole) >= set(works) - aborted
    assert all_told(whole, works) == {name: expected[name] for name in whole}
    assert all_told(run(engine, works), works) == expected  # what it has cached of all that is right


@settings(max_examples=15, deadline=None)
@given(sampling=SAMPLINGS, text=TEXTS)
def test_cut_at_any_token_the_rest_is_what_it_would_have_been(
    tokenizer: Tokenizer, sampling: Sampling, text: str
) -> None:
    ids = ids_of(run(plain(tokenizer), {"a": generate(text, sampling)})["a"])
    works = {f"{cut}": Generate(prompt(text), sampling, tuple(ids[:cut])) for cut in range(len(ids))}
    outputs = run(make(tokenizer), works)
    assert [ids_of(outputs[f"{cut}"]) for cut in range(len(ids))] == [ids[cut:] for cut in range(len(ids))]


@pytest.mark.parametrize("temperature", [0.0, 0.3])
def test_a_real_model_gives_the_same(make_engine: Callable[..., Engine], temperature: float) -> None:
    works = {
        name: generate(text, Sampling(100, temperature, top_p=1, top_k=5, repetition_penalty=1, seed=5))
        for name, text in (("a", QUOTE), ("b", "颜色和图片" * 8), ("c", "thank you"))
    }
    drafting = make_engine()
    drafting.clock = FakeClock()
    outputs = run(drafting, works)
    assert all_told(outputs, works) == all_told(run(make_engine(max_draft_rows=0), works), works)
    assert drafting.counters.accepted_tokens > 0


# ---- what a step takes ----


def answer(
    tokenizer: Tokenizer, *, ids: tuple[int, ...] = (1, 2, 3, 4, 5) * 3, newest: int = 1, max_tokens: int = 40
) -> AnswerSequence:
    """One that has begun, by default to repeat its prompt."""
    begun = AnswerSequence(
        "a",
        Truncated(ids, Truncation()),
        sampling=Sampling(max_tokens=max_tokens),
        seed=0,
        resume=(),
        tokenizer=tokenizer,
        end_ids=tokenizer.end_ids,
        arrived_s=0.0,
    )
    begun.advance(len(ids))
    begun.accept(newest, now_s=0.0)
    return begun


def spans(*answers: AnswerSequence) -> list[Span]:
    return [Span(each, each.num_computed, 1) for each in answers]


def lengthened(*answers: AnswerSequence) -> list[Span]:
    """By a drafter that has measured a plain step, and no step with drafts."""
    drafter = Drafter(max_rows=8)
    drafter.learn(spans(*answers), seconds=1.0)
    return drafter.add_drafts(spans(*answers))


@pytest.mark.parametrize(("num_answers", "counts"), [(1, [8]), (3, [2, 3, 3]), (5, [1, 1, 2, 2, 2]), (8, [1] * 8)])
def test_the_room_is_divided_evenly(tokenizer: Tokenizer, num_answers: int, counts: list[int]) -> None:
    answers = [answer(tokenizer) for _ in range(num_answers)]
    longer = lengthened(*answers)
    assert [span.count for span in longer] == counts
    assert [len(each.ids) for each in answers] == [15 + count for count in counts]


def test_what_one_answer_has_no_draft_for_is_left_to_the_next(tokenizer: Tokenizer) -> None:
    fresh = answer(tokenizer, ids=tuple(range(20)))
    assert [span.count for span in lengthened(fresh, answer(tokenizer))] == [1, 7]


def test_the_last_token_of_all_is_never_drafted(tokenizer: Tokenizer) -> None:
    for max_tokens, count in ((2, 1), (3, 2), (5, 4)):
        [span] = lengthened(answer(tokenizer, max_tokens=max_tokens))
        assert span.count == count
        assert span.end < span.sequence.num_rows


def test_a_draft_ends_where_no_answer_goes_on(tokenizer: Tokenizer) -> None:
    begun = answer(tokenizer, ids=(1, 2, 3, 4, min(tokenizer.end_ids), 7, 1), newest=2)
    [span] = lengthened(begun)
    assert begun.ids[span.start : span.end] == [2, 3, 4]
    assert begun.seen_ids.tolist() == begun.ids[: span.start + 1]


def test_beside_a_prompt_nothing_is_drafted(tokenizer: Tokenizer) -> None:
    beginning = Sequence("p", [1, 2, 3], 3, 3, 0.0, Truncation())
    begun = answer(tokenizer)
    drafter = Drafter(max_rows=8)
    drafter.learn(spans(begun, answer(tokenizer)), seconds=1.0)
    step = [*spans(begun), Span(beginning, 0, 3)]
    assert drafter.add_drafts(step) == step


def test_the_first_step_is_a_plain_one_to_compare_with(tokenizer: Tokenizer) -> None:
    step = spans(answer(tokenizer))
    assert Drafter(max_rows=8).add_drafts(step) == step


# ---- whether it pays ----


def draft_share(tokenizer: Tokenizer, seconds_of: Callable[[int], float]) -> float:
    """Draft tokens for each generated one, where a step over so many rows takes so long."""
    clock = FakeClock()
    model = RepeatingModel(take_time=lambda num_rows: clock.advance(seconds_of(num_rows)))
    engine = Engine(model, tokenizer, LIMITS, clock=clock)
    run(engine, {"a": generate(QUOTE, replace(GREEDY, max_tokens=128))})
    return engine.counters.draft_tokens / engine.counters.generated_tokens


def test_where_rows_cost_little_it_drafts_and_where_each_costs_a_step_it_stops(tokenizer: Tokenizer) -> None:
    cheap = draft_share(tokenizer, lambda num_rows: 1 + 0.05 * num_rows)
    dear = draft_share(tokenizer, lambda num_rows: float(num_rows))
    assert cheap > 1
    assert 0 < dear < cheap / 3
