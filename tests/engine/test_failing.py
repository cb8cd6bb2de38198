"""A failure of one request ends that request and changes no other."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_aio.core import Sampling
from qwen_aio.engine.config import EngineLimits
from qwen_aio.engine.engine import Engine
from qwen_aio.engine.requests import Generate, Output, Work
from qwen_aio.engine.service import EngineService
from qwen_aio.engine.text.tokenizer import Tokenizer
from qwen_aio.errors import InvalidRequest, RequestFailed
from qwen_aio.result import Completion, LabelScore, Scores, TextDelta
from tests.engine.breaking_model import BreakingModel
from tests.engine.exact_model import ExactModel
from tests.engine.repeating_model import RepeatingModel
from tests.engine.running import GREEDY, generate, ids_of, prompt, run, score, scores_of, text_of

LIMITS = EngineLimits(max_context=256, kv_mb=1, max_batch_tokens=32)
SAMPLED = Sampling(max_tokens=24, temperature=1.0, top_p=1, top_k=0, repetition_penalty=1, seed=3)
LONG = "the parcel arrived today and the colour is not like the picture "
WORKS: dict[str, Work] = {
    "greedy": generate("你好", Sampling(max_tokens=24, temperature=0, repetition_penalty=1)),
    "sampled": generate("你好", SAMPLED),
    "long": generate(LONG * 3, SAMPLED),
    "same beginning": generate(LONG * 3 + "!", SAMPLED),
    "labels": score(LONG),
    "equal labels": score(LONG),
    "more equal labels": score(LONG),
    "phrases": score("今天天气真好", "positive, thank you", "positive, 谢谢", "negative"),
}

Outcome = tuple[list[int], str, type, tuple[LabelScore, ...]]


def outcome(outputs: list[Output]) -> Outcome:
    """What came of one request, and of which type the last of it was."""
    *_, last = outputs
    assert last.is_last
    assert not any(output.is_last for output in outputs[:-1])
    labels = last.item.labels if isinstance(last.item, Scores) else ()
    return ids_of(outputs), text_of(outputs), type(last.item), labels


class SpoiledTokenizer(Tokenizer):
    """Cannot say what bytes one of its tokens stands for, nor encode one of the texts."""

    spoiled: int | None = None

    def token_bytes(self, token_id: int) -> bytes:
        if token_id == self.spoiled:
            raise UnicodeError("this token is spoiled")
        return super().token_bytes(token_id)

    def encode_text(self, text: str) -> list[int]:
        if "spoiled" in text:
            raise KeyError("this text is spoiled")
        return super().encode_text(text)


@pytest.fixture
def spoiled(specification: str) -> SpoiledTokenizer:
    return SpoiledTokenizer(specification)


@settings(max_examples=40)
@given(rate=st.integers(2, 60), rest=st.integers(0, 59), names=st.permutations(sorted(WORKS)))
def test_a_request_fails_where_it_would_have_alone_and_the_others_go_on(
    tokenizer: Tokenizer, rate: int, rest: int, names: list[str]
) -> None:
    def engine() -> Engine:
        return Engine(BreakingModel(lambda number: number % rate == rest), tokenizer, LIMITS)

    alone = {name: outcome(run(engine(), {name: WORKS[name]})[name]) for name in names}
    company = engine()
    for _ in range(2):  # the second time over what the first one left in the memory
        outputs = run(company, {name: WORKS[name] for name in names})
        assert {name: outcome(outputs[name]) for name in names} == alone
        assert company.counters.running == 0
        assert not company.has_work
    num_failed = sum(kind is RequestFailed for _, _, kind, _ in alone.values())
    assert company.counters.completed == 2 * (len(names) - num_failed)


@pytest.mark.parametrize("name", ["sampled", "labels"])
def test_the_caller_gets_the_failure_and_the_log_has_the_traceback(
    tokenizer: Tokenizer, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    engine = Engine(BreakingModel(lambda _: True), tokenizer, LIMITS)
    [output] = run(engine, {name: WORKS[name]})[name]
    assert isinstance(output.item, RequestFailed)
    [record] = caplog.records
    assert (record.levelno, record.getMessage()) == (logging.ERROR, f"request failed id={name}")
    assert record.exc_info is not None
    assert record.exc_info[2] is not None


def test_followers_are_computed_although_their_leader_failed(tokenizer: Tokenizer) -> None:
    broken = iter([True])
    engine = Engine(BreakingModel(lambda _: next(broken, False)), tokenizer, LIMITS)
    outputs = run(engine, {f"{number}": WORKS["labels"] for number in range(4)})
    assert isinstance(outputs["0"][0].item, RequestFailed)
    expected = run(Engine(BreakingModel(lambda _: False), tokenizer, LIMITS), {"a": WORKS["labels"]})["a"]
    assert {scores_of(outputs[f"{number}"]).labels for number in (1, 2, 3)} == {scores_of(expected).labels}


def test_the_next_leader_may_leave_after_the_first_failed(tokenizer: Tokenizer) -> None:
    broken = iter([True])
    engine = Engine(BreakingModel(lambda _: next(broken, False)), tokenizer, LIMITS)
    for name in ("first", "second", "third"):
        engine.add(name, WORKS["phrases"], arrived_s=0.0)
    outputs = [output for output in iter_steps(engine) if output.request_id == "first"]
    assert [type(output.item) for output in outputs] == [RequestFailed]
    engine.abort("second")
    engine.abort("third")
    assert not engine.has_work
    engine.check_integrity()


def iter_steps(engine: Engine) -> list[Output]:
    """The outputs of the first step that has any."""
    while not (outputs := engine.step()):
        pass
    return outputs


def test_a_token_that_cannot_be_read_ends_the_answer_that_drew_it(spoiled: SpoiledTokenizer) -> None:
    texts = ("你好", "谢谢", "the colour", "thank you")
    works: dict[str, Work] = {text: generate(text, SAMPLED) for text in texts}
    whole = {text: ids_of(run(Engine(ExactModel(), spoiled, LIMITS), {text: works[text]})[text]) for text in texts}
    others = {token for text in texts[1:] for token in whole[text]}
    at = next(place for place, token in enumerate(whole["你好"]) if place > 3 and token not in others)
    spoiled.spoiled = whole["你好"][at]
    outputs = run(Engine(ExactModel(), spoiled, LIMITS), works)
    first = whole["你好"].index(spoiled.spoiled)
    assert ids_of(outputs["你好"]) == whole["你好"][:first]
    assert isinstance(outputs["你好"][-1].item, RequestFailed)
    assert {text: ids_of(outputs[text]) for text in texts[1:]} == {text: whole[text] for text in texts[1:]}


def test_a_failed_answer_leaves_no_wrong_cache(spoiled: SpoiledTokenizer) -> None:
    """A drafted token was computed and another one failed: the slot holds a token of no answer."""
    long = replace(SAMPLED, max_tokens=60)
    whole = ids_of(run(Engine(RepeatingModel(), spoiled, LIMITS), {"a": generate("你好", long)})["a"])
    for token in set(whole):
        engine = Engine(RepeatingModel(), spoiled, LIMITS)
        spoiled.spoiled = token
        [*_, last] = run(engine, {"a": generate("你好", long)})["a"]
        assert isinstance(last.item, RequestFailed)
        spoiled.spoiled = None
        after = whole.index(token) + 2
        again = run(engine, {"b": Generate(prompt("你好"), long, tuple(whole[:after]))})["b"]
        assert ids_of(again) == whole[after:]


# ---- through the service ----


async def collect(service: EngineService, name: str, text: str, sampling: Sampling) -> list[TextDelta | Completion]:
    return [item async for item in service.generate(name, prompt(text), sampling)]


async def serving(engine: Engine, use: Callable[[EngineService], object]) -> None:
    """`use` a service over `engine`; afterwards it runs, and nothing is left of it."""
    service = EngineService(engine)
    service.start()
    try:
        async with asyncio.timeout(60):
            await use(service)  # type: ignore[misc]
            assert (await service.score("after", prompt("x"), ("正面", "负面"))).labels
        shown = service.snapshot()
        assert (shown.failure, shown.running, shown.queue_depth) == (None, 0, 0)
    finally:
        await service.close()
    engine.check_integrity()


async def test_a_text_that_cannot_be_encoded_ends_its_own_request(spoiled: SpoiledTokenizer) -> None:
    async def use(service: EngineService) -> None:
        good = asyncio.create_task(collect(service, "good", "你好", SAMPLED))
        for _ in range(2):
            with pytest.raises(RequestFailed):
                await collect(service, "bad", "spoiled", SAMPLED)
            with pytest.raises(RequestFailed):
                await service.score("bad", prompt("spoiled"), ("正面",))
            with pytest.raises(RequestFailed):
                await service.score("bad", prompt("x"), ("正面", "spoiled"))
        assert len(await good) == SAMPLED.max_tokens + 1

    await serving(Engine(ExactModel(), spoiled, LIMITS), use)


FLOATS = st.floats() | st.sampled_from([0, 5e-324, 1e-46, 1e-45, 1e-38, 0.005, 0.01, 1, 5, 1e30, 1.7e308])
WHOLE = st.integers() | st.sampled_from([0, 1, 640, 10**6, 2**63 - 1, 2**63, -1])
SAMPLINGS = st.builds(
    Sampling,
    max_tokens=st.integers(1, 12) | WHOLE,
    temperature=FLOATS,
    top_p=FLOATS,
    top_k=WHOLE,
    repetition_penalty=FLOATS,
    stop=st.lists(st.text(max_size=3) | st.sampled_from(["\n", " ", "\0", "�", "<|im_end|>"]), max_size=9).map(tuple),
    seed=st.none() | WHOLE,
)
SOUND = st.builds(
    Sampling,
    max_tokens=st.integers(1, 12),
    temperature=st.floats(0, 5) | st.sampled_from([5e-324, 1e-38, 5.0]),
    top_p=st.floats(0, 1, exclude_min=True) | st.sampled_from([5e-324, 1e-46]),
    top_k=st.integers(0, 10**6),
    repetition_penalty=st.floats(0.01, 5),
    stop=st.lists(st.text(min_size=1, max_size=3), max_size=8).map(tuple),
    seed=st.none() | st.integers(0, 2**63 - 1),
)


async def answered_or_refused(service: EngineService, sampling: Sampling) -> bool:
    try:
        *_, completion = await collect(service, "odd", "你好", sampling)
    except InvalidRequest:
        return False
    assert isinstance(completion, Completion)
    return True


@settings(max_examples=60)
@given(odd=st.lists(SAMPLINGS | SOUND, min_size=1, max_size=4))
def test_no_numbers_of_a_request_stop_the_engine_or_change_what_another_one_gets(
    tokenizer: Tokenizer, odd: list[Sampling]
) -> None:
    engine = Engine(ExactModel(), tokenizer, LIMITS)
    expected = ids_of(run(engine, {"alone": generate("thank you", GREEDY)})["alone"])

    async def use(service: EngineService) -> None:
        neighbour = asyncio.create_task(collect(service, "neighbour", "thank you", GREEDY))
        await asyncio.gather(*(answered_or_refused(service, sampling) for sampling in odd))
        *deltas, _ = await neighbour
        assert [token for delta in deltas for token in delta.token_ids] == expected

    asyncio.run(serving(engine, use))


@settings(max_examples=60)
@given(sampling=SOUND)
def test_what_is_in_bounds_is_answered(tokenizer: Tokenizer, sampling: Sampling) -> None:
    async def use(service: EngineService) -> None:
        assert await answered_or_refused(service, sampling)

    asyncio.run(serving(Engine(ExactModel(), tokenizer, LIMITS), use))
