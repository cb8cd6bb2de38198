"""What does not hold yet: the same answer in any batch, with any part of its prompt cached.

Counted over random weights, whose likeliest tokens are close together; the margins of a trained
model hide most of it. Each must hold in 6 of 6 cases once the arithmetic of a row no longer depends
on the other rows of its step.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from qwen_aio.core import Sampling
from qwen_aio.engine.config import EngineLimits
from qwen_aio.engine.engine import Engine
from qwen_aio.engine.load import load_model
from qwen_aio.engine.load import make_engine as make_from
from qwen_aio.engine.model.linear import WIDE_LEVELS, activation_levels
from qwen_aio.engine.requests import Generate, Score, Work
from tests.engine.conftest import MakeCheckpoint
from tests.engine.running import ids_of, logprobs_of, prompt, run, score

TEXTS = (
    "the parcel arrived today",
    "你好",
    "the colour is not like the picture",
    "thank you very much",
    "今天天气真好",
    "刚收到货",
)
GREEDY = Sampling(max_tokens=128, temperature=0, repetition_penalty=1)
NUM_SENT = 8  # tokens of an answer that another engine goes on with
SHAPE = {"num_hidden_layers": 12, "hidden_size": 256, "intermediate_size": 512, "num_key_value_heads": 4}

MakeEngine = Callable[[], Engine]
hangs_on_company = pytest.mark.xfail(
    reason="attention adds up stretches of slots, and which stretches there are depends on who cached what and who"
    " runs beside it; so sums are rounded differently. The native engine is to make this true.",
    raises=AssertionError,
    strict=activation_levels() == WIDE_LEVELS,  # fewer levels happen to round most of it away
)


@pytest.fixture(scope="module")
def make_by_precision(make_checkpoint: MakeCheckpoint) -> Callable[[str], MakeEngine]:
    folder = make_checkpoint(std=0.06, seed=2, **SHAPE)

    def make(precision: str) -> MakeEngine:
        loaded = load_model(folder, max_context=256, threads=1, precision=precision)  # type: ignore[arg-type]
        return lambda: make_from(loaded, EngineLimits(max_context=256, kv_mb=64), threads=1)

    return make


@pytest.fixture(scope="module")
def make_int8(make_by_precision: Callable[[str], MakeEngine]) -> MakeEngine:
    return make_by_precision("int8")


@pytest.fixture(scope="module")
def alone(make_int8: MakeEngine) -> list[list[int]]:
    """The greedy answer to each text, on an engine that has computed nothing else."""
    return [said(make_int8(), answer(text)) for text in TEXTS]


def answer(text: str, *, sent: tuple[int, ...] = ()) -> Generate:
    return Generate(prompt(text), GREEDY, sent)


def said(engine: Engine, work: Work) -> list[int]:
    return ids_of(run(engine, {"a": work})["a"])


@hangs_on_company
def test_an_answer_asked_for_twice_is_the_same(make_int8: MakeEngine, alone: list[list[int]]) -> None:
    engine = make_int8()
    again = [[said(engine, answer(text)) for _ in range(2)][1] for text in TEXTS]
    assert sum(map(list.__eq__, again, alone)) == 6


@hangs_on_company
def test_answers_asked_for_together_are_the_same_as_alone(make_int8: MakeEngine, alone: list[list[int]]) -> None:
    outputs = run(make_int8(), {text: answer(text) for text in TEXTS})
    assert sum(ids_of(outputs[text]) == ids for text, ids in zip(TEXTS, alone, strict=True)) == 6


@hangs_on_company
def test_a_resumed_answer_is_the_same(make_int8: MakeEngine, alone: list[list[int]]) -> None:
    sent = [tuple(ids[:NUM_SENT]) for ids in alone]
    rest = [said(make_int8(), answer(text, sent=ids)) for text, ids in zip(TEXTS, sent, strict=True)]
    assert sum([*first, *then] == ids for first, then, ids in zip(sent, rest, alone, strict=True)) == 6


@hangs_on_company
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_decision_is_bit_for_bit_the_same_in_company(
    make_by_precision: Callable[[str], MakeEngine], precision: str
) -> None:
    make = make_by_precision(precision)
    works: dict[str, Score] = {text: score(text) for text in TEXTS}
    alone = {text: logprobs_of(run(make(), {text: work})[text]) for text, work in works.items()}
    together = run(make(), works)
    assert sum(logprobs_of(together[text]) == alone[text] for text in TEXTS) == 6
