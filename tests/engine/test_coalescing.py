"""Equal requests are computed once, and each gets the result it would get alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from qwen_aio.core import Sampling
from qwen_aio.engine.config import EngineLimits
from qwen_aio.engine.engine import Engine
from qwen_aio.engine.model.pool import KvPool
from qwen_aio.engine.requests import Generate, Output, Score, Work
from qwen_aio.engine.scheduling.scheduler import Span
from qwen_aio.engine.service import EngineService
from qwen_aio.engine.text.tokenizer import Tokenizer
from qwen_aio.errors import QueueFull
from tests.engine.exact_model import ExactModel
from tests.engine.running import finish, generate, ids_of, logprobs_of, prompt, run, score, scores_of
from tests.fakes import FakeClock

LIMITS = EngineLimits(max_context=256, kv_mb=1, max_batch_tokens=16)  # a decision takes two steps and more
LONG = "the parcel arrived today and the colour is not like the picture, a little disappointed " * 2
ASKED = score("the parcel arrived today")

MakeCounting = Callable[..., tuple[Engine, list[int]]]


class CountingModel(ExactModel):
    """Notes the rows of each of its steps."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def forward(self, spans: Sequence[Span], pool: KvPool) -> NDArray[np.float32]:
        self.rows.append(sum(span.count for span in spans))
        return super().forward(spans, pool)


@pytest.fixture
def make(tokenizer: Tokenizer) -> MakeCounting:
    """An engine whose clock stands still, and the rows of each of its steps."""

    def make(limits: EngineLimits = LIMITS) -> tuple[Engine, list[int]]:
        model = CountingModel()
        return Engine(model, tokenizer, limits, clock=FakeClock()), model.rows

    return make


def collect(outputs: dict[str, list[Output]], more: list[Output]) -> None:
    for output in more:
        outputs.setdefault(output.request_id, []).append(output)


# ---- equal decisions ----


def test_equal_decisions_are_computed_once_and_each_gets_the_scores(make: MakeCounting) -> None:
    engine, rows = make()
    alone, rows_alone = make()
    expected = scores_of(run(alone, {"a": ASKED})["a"])
    outputs = run(engine, {f"{number}": ASKED for number in range(20)})
    assert sum(rows) == sum(rows_alone)
    assert {scores_of(outputs[f"{number}"]).labels for number in range(20)} == {expected.labels}
    assert engine.counters.completed == 20
    usages = [scores_of(outputs[f"{number}"]).usage for number in range(20)]
    assert usages[0] == expected.usage
    assert usages[1:] == [replace(expected.usage, cached_tokens=expected.usage.prompt_tokens)] * 19


def test_one_that_comes_while_its_equal_runs_follows_it_and_waits_only_for_the_rest(make: MakeCounting) -> None:
    engine, rows = make()
    clock = engine.clock
    assert isinstance(clock, FakeClock)
    engine.add("first", ASKED, arrived_s=clock.now)
    clock.advance(1)
    assert engine.step() == []
    clock.advance(1)
    engine.add("second", ASKED, arrived_s=clock.now)
    clock.advance(3)
    outputs = finish(engine)
    assert max(rows) == 12  # three quarters of a step: so long is this decision
    first, second = (scores_of(outputs[name]).timings for name in ("first", "second"))
    assert (first.queue_ms, first.prefill_ms, first.total_ms) == (1000, 4000, 5000)
    assert (second.queue_ms, second.prefill_ms, second.total_ms) == (0, 3000, 3000)


def test_a_decision_after_its_equal_has_ended_reads_the_cache(make: MakeCounting) -> None:
    engine, _ = make()
    run(engine, {"a": ASKED})
    usage = scores_of(run(engine, {"a": ASKED})["a"]).usage
    assert usage.cached_tokens == usage.prompt_tokens - 1


def test_other_texts_or_another_order_of_continuations_are_another_question(make: MakeCounting) -> None:
    engine, _ = make()
    works = {"a": score("x", "正面", "负面"), "b": score("x", "负面", "正面"), "c": score("y", "正面", "负面")}
    labels = {name: scores_of(outputs).labels for name, outputs in run(engine, works).items()}
    assert labels["a"] == labels["b"][::-1]
    assert labels["a"] != labels["c"]
    assert [label.text for label in labels["b"]] == ["负面", "正面"]


@pytest.mark.parametrize("num_steps", [0, 1])
@pytest.mark.parametrize("gone", [("a",), ("b",), ("a", "b"), ("c", "a")])
def test_a_leader_or_a_follower_that_leaves_ends_no_other(
    make: MakeCounting, gone: tuple[str, ...], num_steps: int
) -> None:
    alone, rows_alone = make()
    expected = scores_of(run(alone, {"a": ASKED})["a"]).labels
    engine, rows = make()
    for name in ("a", "b", "c"):
        engine.add(name, ASKED, arrived_s=engine.clock())
    for _ in range(num_steps):
        assert engine.step() == []
    for name in gone:
        engine.abort(name)
        engine.check_integrity()
    outputs = finish(engine)
    assert set(outputs) == {"a", "b", "c"} - set(gone)
    assert {scores_of(each).labels for each in outputs.values()} == {expected}
    assert rows == rows_alone
    assert min(scores_of(each).timings.queue_ms for each in outputs.values()) >= 0


def test_the_follower_that_takes_over_counts_from_its_own_arrival(make: MakeCounting) -> None:
    engine, _ = make()
    clock = engine.clock
    assert isinstance(clock, FakeClock)
    engine.add("first", ASKED, arrived_s=clock.now)
    assert engine.step() == []
    clock.advance(2)
    engine.add("second", ASKED, arrived_s=clock.now)
    engine.abort("first")
    clock.advance(3)
    timings = scores_of(finish(engine)["second"]).timings
    assert (timings.queue_ms, timings.prefill_ms, timings.total_ms) == (0, 3000, 3000)


def test_when_all_have_left_nothing_is_computed_and_the_next_starts_over(make: MakeCounting) -> None:
    engine, _ = make()
    for name in ("a", "b"):
        engine.add(name, ASKED, arrived_s=0.0)
    engine.step()
    for name in ("a", "b"):
        engine.abort(name)
    assert not engine.has_work
    assert scores_of(run(engine, {"c": ASKED})["c"]).labels


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_arrivals_and_aborts_change_no_other_result(tokenizer: Tokenizer, data: st.DataObject) -> None:
    questions = [ASKED, score(LONG), score("x", "正面", "负面"), generate(LONG), generate("x")]
    expected = [run(Engine(ExactModel(), tokenizer, LIMITS), {"a": work})["a"] for work in questions]
    engine = Engine(ExactModel(), tokenizer, LIMITS)
    asked: dict[str, int] = {}
    aborted: set[str] = set()
    outputs: dict[str, list[Output]] = {}
    for number in range(data.draw(st.integers(2, 14))):
        asked[f"{number}"] = data.draw(st.integers(0, len(questions) - 1))
        engine.add(f"{number}", questions[asked[f"{number}"]], arrived_s=engine.clock())
        if data.draw(st.booleans()):
            collect(outputs, engine.step())
        if data.draw(st.integers(0, 3)) == 0:
            gone = data.draw(st.sampled_from(sorted(asked)))
            aborted.add(gone)
            engine.abort(gone)
        engine.check_integrity()
    for rest in finish(engine).values():
        collect(outputs, rest)
    for name in set(asked) - aborted:
        is_score = isinstance(questions[asked[name]], Score)
        numbers: Callable[[list[Output]], object] = logprobs_of if is_score else ids_of
        assert numbers(outputs[name]) == numbers(expected[asked[name]])
        assert sum(output.is_last for output in outputs[name]) == 1


async def test_a_follower_takes_a_place_in_the_queue(tokenizer: Tokenizer) -> None:
    limits = replace(LIMITS, max_running=1, max_answers=1, max_queue=2)
    service = EngineService(Engine(ExactModel(), tokenizer, limits))
    tasks = [asyncio.create_task(service.score("a", ASKED.prompt, ASKED.continuations)) for _ in range(3)]
    while service.snapshot().queue_depth < 3:  # noqa: ASYNC110  what changes is what the tasks do
        await asyncio.sleep(0)
    with pytest.raises(QueueFull):
        await service.score("b", ASKED.prompt, ASKED.continuations)
    service.start()
    assert len({scores.labels for scores in await asyncio.gather(*tasks)}) == 1
    await service.close()


# ---- equal beginnings ----


@pytest.mark.parametrize("max_batch_tokens", [256, 16])
def test_one_prompt_of_many_answers_is_computed_once(make: MakeCounting, max_batch_tokens: int) -> None:
    def sampled(seed: int) -> Work:
        return Generate(prompt(LONG), Sampling(12, temperature=1.2, top_p=1, top_k=0, seed=seed))

    limits = replace(LIMITS, max_batch_tokens=max_batch_tokens, max_draft_rows=0)
    alone, rows_alone = {}, {}
    for seed in range(6):
        engine, rows = make(limits)
        alone[f"{seed}"], rows_alone[seed] = ids_of(run(engine, {"a": sampled(seed)})["a"]), rows
    engine, rows = make(limits)
    outputs = run(engine, {f"{seed}": sampled(seed) for seed in range(6)})
    assert {name: ids_of(each) for name, each in outputs.items()} == alone
    assert len({tuple(ids) for ids in alone.values()}) > 1
    num_prompt = sum(rows_alone[0]) - 11
    assert sum(rows) == sum(map(sum, rows_alone.values())) - 5 * (num_prompt - 1)


def test_many_questions_about_one_text_compute_it_once(make: MakeCounting) -> None:
    works = {name: Score(prompt(LONG + name), ("正面", "负面", "中性")) for name in "abcdef"}
    engine, rows = make(replace(LIMITS, max_batch_tokens=256))
    alone = {name: run(make()[0], {name: work})[name] for name, work in works.items()}
    outputs = run(engine, works)
    assert {name: logprobs_of(each) for name, each in outputs.items()} == {
        name: logprobs_of(each) for name, each in alone.items()
    }
    assert sum(rows) < 2 * max(scores_of(each).usage.prompt_tokens for each in outputs.values())
    assert len(rows) == 2  # one reads it, then all the others go on together
