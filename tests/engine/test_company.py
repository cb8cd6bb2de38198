"""An answer is the same to the last bit in any company, with any part of its prompt cached, and resumed anywhere.

Random weights, whose likeliest tokens are close together, so that every last bit counts. In int8, four
layers of the width of Qwen1.5-0.5B; all its layers, and its vocabulary, in the campaign. Only the C++ kernels
promise it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch

from qwen_aio.core import Precision, Sampling
from qwen_aio.engine.config import EngineLimits
from qwen_aio.engine.engine import Engine
from qwen_aio.engine.load import LoadedModel, load_model
from qwen_aio.engine.load import make_engine as make_from
from qwen_aio.engine.requests import Generate, Score, Work
from qwen_aio.engine.weights.folder import Folder
from tests.campaign import CAMPAIGN
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
GREEDY = Sampling(max_tokens=40, temperature=0, repetition_penalty=1)
DRAWN = Sampling(max_tokens=40, temperature=0.8, top_p=0.9, repetition_penalty=1, seed=7)
SAMPLINGS = pytest.mark.parametrize("sampling", [GREEDY, DRAWN], ids=["greedy", "drawn"])
NUM_SENT = 8  # tokens of an answer that another engine goes on with
SMALL = {"num_hidden_layers": 4, "hidden_size": 256, "intermediate_size": 512}
WIDE = {
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "head_dim": 64,
    "num_hidden_layers": 24 if CAMPAIGN else 4,
    "vocab_size": 151_936 if CAMPAIGN else 640,
}

MakeEngine = Callable[..., Engine]


@pytest.fixture(scope="module", params=["int8", "fp32"])
def precision(request: pytest.FixtureRequest) -> Precision:
    found: Precision = request.param
    return found


@pytest.fixture(scope="module")
def loaded(make_checkpoint: MakeCheckpoint, precision: Precision) -> LoadedModel:
    shape = WIDE if precision == "int8" or CAMPAIGN else SMALL
    folder = make_checkpoint(std=0.03, seed=2, dtype=torch.bfloat16, **shape)
    return load_model(Folder.open(folder), max_context=256, threads=1, precision=precision)


@pytest.fixture(scope="module")
def make(loaded: LoadedModel) -> MakeEngine:
    """A new engine, which has computed nothing."""
    if loaded.kernel == "torch":
        pytest.skip("the library needs g++")

    def make_engine(*, threads: int = 2, **limits: int) -> Engine:
        return make_from(loaded, EngineLimits(**({"max_context": 256, "kv_mb": 64} | limits)), threads=threads)

    return make_engine


@pytest.fixture(scope="module")
def alone(make: MakeEngine) -> Mapping[Sampling, list[list[int]]]:
    """The answer to each text, on an engine that has computed nothing else."""
    return {sampling: [said(make(), answer(text, sampling)) for text in TEXTS] for sampling in (GREEDY, DRAWN)}


def answer(text: str, sampling: Sampling, *, sent: tuple[int, ...] = ()) -> Generate:
    return Generate(prompt(text), sampling, sent)


def said(engine: Engine, work: Work) -> list[int]:
    return ids_of(run(engine, {"a": work})["a"])


Alone = Mapping[Sampling, list[list[int]]]


@SAMPLINGS
def test_an_answer_asked_for_twice_is_the_same(make: MakeEngine, alone: Alone, sampling: Sampling) -> None:
    engine = make()
    again = [[said(engine, answer(text, sampling)) for _ in range(2)][1] for text in TEXTS]
    assert again == alone[sampling]


@SAMPLINGS
def test_answers_asked_for_together_are_the_same_as_alone(make: MakeEngine, alone: Alone, sampling: Sampling) -> None:
    outputs = run(make(), {text: answer(text, sampling) for text in TEXTS})
    assert [ids_of(outputs[text]) for text in TEXTS] == alone[sampling]


@SAMPLINGS
def test_a_resumed_answer_is_the_same(make: MakeEngine, alone: Alone, sampling: Sampling) -> None:
    sent = [tuple(ids[:NUM_SENT]) for ids in alone[sampling]]
    rest = [said(make(), answer(text, sampling, sent=ids)) for text, ids in zip(TEXTS, sent, strict=True)]
    assert [[*first, *then] for first, then in zip(sent, rest, strict=True)] == alone[sampling]


@pytest.mark.parametrize("threads", [1, 3])
def test_the_number_of_threads_changes_nothing(make: MakeEngine, alone: Alone, threads: int) -> None:
    assert [said(make(threads=threads), answer(text, GREEDY)) for text in TEXTS] == alone[GREEDY]


@pytest.mark.parametrize("rows", [7, 32])
def test_the_size_of_steps_changes_nothing(make: MakeEngine, alone: Alone, rows: int) -> None:
    outputs = run(make(max_batch_tokens=rows), {text: answer(text, GREEDY) for text in TEXTS})
    assert [ids_of(outputs[text]) for text in TEXTS] == alone[GREEDY]


def test_a_decision_is_bit_for_bit_the_same_in_company(make: MakeEngine) -> None:
    works: dict[str, Score] = {text: score(text, "正面", "负面", "中性", "the parcel") for text in TEXTS}
    alone = {text: logprobs_of(run(make(), {text: work})[text]) for text, work in works.items()}
    together = run(make(max_batch_tokens=48), works)
    assert {text: logprobs_of(together[text]) for text in TEXTS} == alone
