"""Answers that keep to a JSON schema: whatever the model would rather say, and whatever the schema is."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_aio.core import Sampling
from qwen_aio.engine.config import EngineLimits
from qwen_aio.engine.engine import Engine
from qwen_aio.engine.requests import Generate, Output
from qwen_aio.engine.sampler import keep
from qwen_aio.engine.service import EngineService
from qwen_aio.engine.text.grammar import GrammarCompiler
from qwen_aio.engine.text.tokenizer import Tokenizer
from qwen_aio.errors import InvalidRequest
from qwen_aio.result import Completion
from tests.engine.exact_model import ExactModel
from tests.engine.repeating_model import RepeatingModel
from tests.engine.running import completion_of, ids_of, prompt, run, text_of
from tests.fakes import FakeClock

LIMITS = EngineLimits(max_context=256, kv_mb=1)
HOT = Sampling(max_tokens=100, temperature=1.5, top_p=1, top_k=0, repetition_penalty=1.1, seed=4)
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "mood": {"enum": ["正面", "负面"]},
        "age": {"type": "integer", "minimum": 1, "maximum": 99},
    },
    "required": ["name", "mood", "age"],
    "additionalProperties": False,
}
# Those that llguidance refuses.
IMPOSSIBLE = [
    {"$ref": "#/$defs/x"},
    {"type": "integer", "minimum": 2, "maximum": 1},
    {"properties": {"a": {"type": "integer", "minimum": 2, "maximum": 1}}, "required": ["a"], "type": "object"},
]


def compiled(tokenizer: Tokenizer, schema: object) -> object:
    return GrammarCompiler(tokenizer, end_ids=tokenizer.end_ids).compile(json.dumps(schema))


def answered(engine: Engine, schema: object, sampling: Sampling = HOT, resume: tuple[int, ...] = ()) -> list[Output]:
    grammar = engine.compile(json.dumps(schema))
    return run(engine, {"a": Generate(prompt("你好"), sampling, resume, grammar=grammar)})["a"]


def check_person(outputs: list[Output]) -> None:
    person = json.loads(text_of(outputs))
    assert completion_of(outputs).finish_reason == "stop"
    assert list(person) == ["name", "mood", "age"]
    assert len(person["name"]) <= 8
    assert person["mood"] in ("正面", "负面")
    assert 1 <= person["age"] <= 99


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), temperature=st.sampled_from([0.0, 0.7, 2.0]))
def test_a_model_that_knows_no_json_gives_what_the_schema_says(
    tokenizer: Tokenizer, seed: int, temperature: float
) -> None:
    engine = Engine(ExactModel(), tokenizer, LIMITS)
    check_person(answered(engine, PERSON, replace(HOT, seed=seed, temperature=temperature)))


def test_an_answer_that_is_cut_is_the_beginning_of_one(tokenizer: Tokenizer) -> None:
    outputs = answered(Engine(ExactModel(), tokenizer, LIMITS), {"type": "object"}, replace(HOT, max_tokens=9))
    assert text_of(outputs).startswith("{")
    assert completion_of(outputs).usage.completion_tokens <= 9


def test_drafted_tokens_keep_to_it_too(tokenizer: Tokenizer) -> None:
    many = {"type": "array", "items": {"const": "the colour"}, "minItems": 12, "maxItems": 12}
    drafting = Engine(RepeatingModel(), tokenizer, LIMITS, clock=FakeClock())
    plain = Engine(RepeatingModel(), tokenizer, replace(LIMITS, max_draft_rows=0))
    sampling = replace(HOT, temperature=0.5, repetition_penalty=1)
    outputs = answered(drafting, many, sampling)
    assert ids_of(outputs) == ids_of(answered(plain, many, sampling))
    assert json.loads(text_of(outputs)) == ["the colour"] * 12
    assert drafting.counters.accepted_tokens > 0


def test_cut_at_any_token_another_engine_goes_on_in_the_same_place(tokenizer: Tokenizer) -> None:
    whole = answered(Engine(ExactModel(), tokenizer, LIMITS), PERSON)
    ids, second = ids_of(whole), Engine(ExactModel(), tokenizer, LIMITS)
    for cut in range(0, len(ids), 5):
        assert ids_of(answered(second, PERSON, resume=tuple(ids[:cut]))) == ids[cut:]
    with pytest.raises(InvalidRequest, match="JSON schema"):
        answered(second, PERSON, resume=tuple(tokenizer.encode_text("thank you")))


def test_who_wants_no_json_is_not_disturbed_by_who_does(tokenizer: Tokenizer) -> None:
    alone = run(Engine(ExactModel(), tokenizer, LIMITS), {"b": Generate(prompt("谢谢"), HOT)})["b"]
    engine = Engine(ExactModel(), tokenizer, LIMITS)
    grammar = engine.compile(json.dumps(PERSON))
    outputs = run(engine, {"a": Generate(prompt("你好"), HOT, grammar=grammar), "b": Generate(prompt("谢谢"), HOT)})
    assert ids_of(outputs["b"]) == ids_of(alone)
    check_person(outputs["a"])


@pytest.mark.parametrize("schema", IMPOSSIBLE)
def test_a_schema_that_cannot_be_kept_to_is_refused_in_a_sentence(tokenizer: Tokenizer, schema: object) -> None:
    with pytest.raises(InvalidRequest) as caught:
        compiled(tokenizer, schema)
    assert caught.value.param == "json_schema"
    assert len(caught.value.message) < 300


def test_half_a_surrogate_pair_is_no_schema(tokenizer: Tokenizer) -> None:
    with pytest.raises(InvalidRequest, match="JSON schema"):
        compiled(tokenizer, {"const": "\ud800"})


def test_a_schema_that_grows_too_large_ends_its_own_answer_alone(tokenizer: Tokenizer) -> None:
    grows = {"anyOf": [{"type": "object", "properties": {f"p{i}": {"type": "string"}}} for i in range(300)]}
    engine = Engine(ExactModel(), tokenizer, LIMITS)
    grammar = engine.compile(json.dumps(grows))
    outputs = run(engine, {"a": Generate(prompt("你好"), HOT, grammar=grammar), "b": Generate(prompt("谢谢"), HOT)})
    error = outputs["a"][-1].item
    assert isinstance(error, InvalidRequest)
    assert "JSON schema" in error.message
    assert isinstance(outputs["b"][-1].item, Completion)


def test_without_the_extra_the_refusal_names_it(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(InvalidRequest, match=r"pip install 'qwen-aio\[json\]'"):
        compiled(tokenizer, PERSON)


async def test_the_service_compiles_and_answers(tokenizer: Tokenizer) -> None:
    service = EngineService(Engine(ExactModel(), tokenizer, LIMITS))
    service.start()
    *deltas, _ = [item async for item in service.generate("a", prompt("你好"), HOT, json_schema=json.dumps(PERSON))]
    assert json.loads("".join(delta.text for delta in deltas))["mood"] in ("正面", "负面")
    with pytest.raises(InvalidRequest, match="JSON schema"):
        await anext(service.generate("b", prompt("你好"), HOT, json_schema='{"not": {}}'))
    await service.close()


@pytest.mark.parametrize("num_known", [3, 8])
def test_what_a_grammar_does_not_know_is_impossible(num_known: int) -> None:
    logits = np.zeros(6, np.float32)
    keep(logits, np.arange(num_known) == 1)
    assert np.isfinite(logits).nonzero()[0].tolist() == [1]
