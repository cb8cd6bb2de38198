"""Short decisions in the whole engine beside long ones and answers, counted in steps."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from qwen_aio.core import Sampling
from qwen_aio.engine.config import EngineLimits
from qwen_aio.engine.engine import Engine
from qwen_aio.engine.requests import Generate, Output, Pin, Score
from qwen_aio.engine.scheduling.order import OVERDUE_AFTER_S
from qwen_aio.engine.text.tokenizer import Tokenizer
from tests.engine.exact_model import ExactModel
from tests.engine.running import SYSTEM, finish, logprobs_of, prompt, run, score, turn
from tests.fakes import FakeClock

LIMITS = EngineLimits(max_context=256, kv_mb=1, max_batch_tokens=64)
NUM_LONG = 10
TEXTS = ("thank you", "今天天气真好", "the parcel arrived today", "有点小失望。")


@pytest.fixture
def engine(tokenizer: Tokenizer) -> Engine:
    """With a clock that stands still; the shared prefix of all prompts is cached."""
    engine = Engine(ExactModel(), tokenizer, LIMITS, clock=FakeClock())
    run(engine, {"pin": Pin(turn("system", SYSTEM))})
    return engine


def long_text(number: int) -> str:
    return f"{number} the colour is not like the picture, a little disappointed " * 5


def add_long_ones(engine: Engine) -> None:
    for number in range(NUM_LONG):
        engine.add(f"long {number}", score(long_text(number)), arrived_s=engine.clock())


def add_answers(engine: Engine) -> None:
    for number in range(LIMITS.max_answers + 2):
        work = Generate(prompt(f"{number} thank you"), Sampling(60, temperature=0, repetition_penalty=1))
        engine.add(f"answer {number}", work, arrived_s=engine.clock())


def arrivals(*, after_steps: int) -> Iterator[tuple[str, Score]]:
    """Short decisions with new questions."""
    for number in range(after_steps):
        yield f"short {number}", score(f"{number} {TEXTS[number % len(TEXTS)]}")


@pytest.mark.parametrize("with_answers", [False, True])
def test_a_short_decision_waits_for_the_running_step_only(engine: Engine, with_answers: bool) -> None:
    add_long_ones(engine)
    if with_answers:
        add_answers(engine)
    for name, work in arrivals(after_steps=20):
        engine.step()
        engine.add(name, work, arrived_s=engine.clock())
        assert name in [output.request_id for output in engine.step()]
        assert engine.counters.running < LIMITS.max_running


def test_what_short_ones_pass_gets_the_same_scores(engine: Engine, tokenizer: Tokenizer) -> None:
    add_long_ones(engine)
    outputs: dict[str, list[Output]] = {}
    for name, work in arrivals(after_steps=20):
        engine.add(name, work, arrived_s=engine.clock())
        outputs |= {output.request_id: [output] for output in (*engine.step(), *engine.step())}
    outputs |= finish(engine)
    for number in range(NUM_LONG):
        alone = run(Engine(ExactModel(), tokenizer, LIMITS), {"a": score(long_text(number))})["a"]
        assert logprobs_of(outputs[f"long {number}"]) == logprobs_of(alone)


def steps_until_done(engine: Engine, name: str) -> int:
    """Of a long decision beside endless short ones, each of which ends in its first step."""
    engine.add(name, score(long_text(0)), arrived_s=engine.clock() - OVERDUE_AFTER_S * (name == "overdue"))
    for number, (short, work) in enumerate(arrivals(after_steps=60), 1):
        engine.add(short, work, arrived_s=engine.clock())
        done = [output.request_id for output in engine.step()]
        assert short in done
        if name in done:
            return number
    raise AssertionError(f"{name} is not done after 60 steps")


def test_a_long_decision_is_computed_beside_short_ones_that_never_end_and_an_overdue_one_sooner(
    tokenizer: Tokenizer,
) -> None:
    steps = {}
    for name in ("long", "overdue"):
        clock = FakeClock()
        clock.advance(2 * OVERDUE_AFTER_S)
        steps[name] = steps_until_done(Engine(ExactModel(), tokenizer, LIMITS, clock=clock), name)
    assert steps["overdue"] < steps["long"]
