"""The whole engine: text as of transformers, batches as single runs, the cache changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import Qwen2ForCausalLM

from qwen_aio.core import Prompt, Sampling, Text
from qwen_aio.engine.config import EngineLimits
from qwen_aio.engine.engine import Engine
from qwen_aio.engine.load import load_engine, load_model
from qwen_aio.engine.load import make_engine as make_from
from qwen_aio.engine.requests import Generate, Pin, Pinned, Score, Work
from qwen_aio.engine.text.tokenizer import Tokenizer
from qwen_aio.engine.weights.folder import Folder
from qwen_aio.errors import InvalidSettings
from tests.engine.conftest import MakeCheckpoint
from tests.engine.running import (
    GREEDY,
    completion_of,
    deltas_of,
    finish,
    generate,
    ids_of,
    logprobs_of,
    prompt,
    run,
    score,
    scores_of,
    text_of,
    turn,
)

MakeEngine = Callable[..., Engine]
SAMPLED = Sampling(max_tokens=10, temperature=0.9, top_p=0.95, top_k=30, repetition_penalty=1.1, seed=7)

# Decisions and answers of many lengths, some with equal beginnings: what a step has to mix.
WORKS: dict[str, Work] = {
    "short": generate("你好"),
    "long": generate("the colour is not like the picture, a little disappointed " * 5),
    "sampled": generate("thank you", SAMPLED),
    "penalty": generate("你好", Sampling(max_tokens=9, temperature=0, repetition_penalty=1.3)),
    "labels": score("the parcel arrived today"),
    "phrases": score("今天天气真好", "positive, thank you", "positive, 谢谢", "negative", "neutral"),
    "long decision": score("刚收到货,颜色和图片不太一样。" * 8),
    "twin": score("the parcel arrived today"),
}

pytestmark = pytest.mark.usefixtures("over_both_kernels")


def assert_same(outputs: dict, expected: dict, name: str) -> None:
    """Equal text for answers; equal numbers for decisions, except rounding in other batches.

    In int8 a number between two levels may be rounded either way: a hundred times as much.
    """
    if isinstance(WORKS[name], Generate):
        assert ids_of(outputs[name]) == ids_of(expected[name])
        assert text_of(outputs[name]) == text_of(expected[name])
    else:
        assert logprobs_of(outputs[name]) == pytest.approx(logprobs_of(expected[name]), abs=expected["tolerance"])


@pytest.fixture(scope="module", params=["fp32", "int8"])
def in_either(request: pytest.FixtureRequest, checkpoint: Path) -> MakeEngine:
    """A fresh engine over the common checkpoint in one precision and then in the other."""
    loaded = load_model(Folder.open(checkpoint), max_context=256, threads=1, precision=request.param)

    def make(**limits: int) -> Engine:
        return make_from(loaded, EngineLimits(**({"max_context": 256, "kv_mb": 1} | limits)), threads=1)

    make.tolerance = {"fp32": 1e-4, "int8": 2e-2}[request.param]
    return make


@pytest.fixture(scope="module")
def alone(in_either: MakeEngine) -> dict:
    """Every work in an engine of its own, prompts in one chunk: nothing shared or cached."""
    outputs = {name: run(in_either(), {name: work})[name] for name, work in WORKS.items()}
    return outputs | {"tolerance": in_either.tolerance}


@pytest.mark.parametrize("penalty", [1.0, 1.3])
@pytest.mark.parametrize("text", ["你好", "the colour is not like the picture", ""])
@torch.inference_mode()
def test_greedy_text_equals_that_of_transformers(
    engine: Engine, oracle: Qwen2ForCausalLM, tokenizer: Tokenizer, text: str, penalty: float
) -> None:
    sampling = Sampling(max_tokens=40, temperature=0, repetition_penalty=penalty)
    ours = ids_of(run(engine, {"a": generate(text, sampling)})["a"])
    asked = prompt(text)
    ids = tokenizer.encode((*asked.head, *asked.body))
    theirs = oracle.generate(
        torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        do_sample=False,
        max_new_tokens=40,
        repetition_penalty=penalty,
        eos_token_id=sorted(tokenizer.end_ids),
        pad_token_id=0,
        suppress_tokens=sorted(set(range(640)) - tokenizer.text_ids - tokenizer.end_ids),
    )[0, len(ids) :].tolist()
    assert ours == theirs


@torch.inference_mode()
def test_label_scores_equal_full_log_softmax_sums_of_transformers(
    engine: Engine, oracle: Qwen2ForCausalLM, tokenizer: Tokenizer
) -> None:
    # One token, many tokens, a shared beginning, the beginning of another, a whole answer.
    continuations = ("t", "the colour", "the parcel", "the", "正面", "negative and a little disappointed " * 6)
    scores = scores_of(run(engine, {"a": score("今天天气真好", *continuations)})["a"])
    asked = prompt("今天天气真好")
    ids = tokenizer.encode((*asked.head, *asked.body))
    for label, text in zip(scores.labels, continuations, strict=True):
        tail = tokenizer.encode_text(text)
        logprobs = oracle(torch.tensor([ids + tail])).logits[0].log_softmax(-1)
        expected = sum(float(logprobs[len(ids) - 1 + n, token]) for n, token in enumerate(tail))
        assert (label.text, label.num_tokens) == (text, len(tail))
        assert label.logprob == pytest.approx(expected, abs=1e-3)
    assert max(label.num_tokens for label in scores.labels) > 30
    assert scores.usage.prompt_tokens == len(ids)


@pytest.mark.parametrize("max_batch_tokens", [256, 24, 9])
def test_batched_equals_one_by_one(in_either: MakeEngine, alone: dict, max_batch_tokens: int) -> None:
    outputs = run(in_either(max_batch_tokens=max_batch_tokens), WORKS)
    for name in WORKS:
        assert_same(outputs, alone, name)


def test_requests_that_join_between_steps_change_nothing(in_either: MakeEngine, alone: dict) -> None:
    engine, outputs = in_either(max_batch_tokens=16), {}
    for name, work in WORKS.items():
        engine.add(name, work, arrived_s=engine.clock())
        for output in [*engine.step(), *engine.step()]:
            outputs.setdefault(output.request_id, []).append(output)
    for name, rest in finish(engine).items():
        outputs.setdefault(name, []).extend(rest)
    for name in WORKS:
        assert_same(outputs, alone, name)


def test_a_cached_prefix_changes_nothing_but_the_count(in_either: MakeEngine, alone: dict) -> None:
    engine = in_either()
    run(engine, WORKS)
    again = run(engine, WORKS)
    for name, work in WORKS.items():
        assert_same(again, alone, name)
        usages = [
            scores_of(o[name]).usage if isinstance(work, Score) else completion_of(o[name]).usage
            for o in (alone, again)
        ]
        assert usages[0].cached_tokens == 0
        num_computed = 0 if name == "twin" else 1  # the last token, always; but the twin follows another decision
        assert usages[1].cached_tokens == usages[1].prompt_tokens - num_computed
        assert usages[0].prompt_tokens == usages[1].prompt_tokens


def test_little_memory_only_makes_it_slower(make_checkpoint: MakeCheckpoint) -> None:
    wide = make_checkpoint(hidden_size=256, num_key_value_heads=4)  # 256 tokens a megabyte: two or three sequences
    works = {name: work for name, work in WORKS.items() if not name.startswith("long")}
    roomy, tight = (load_engine(wide, EngineLimits(max_context=192, kv_mb=mb), threads=1) for mb in (64, 1))
    expected = {name: run(roomy, {name: work})[name] for name, work in works.items()} | {"tolerance": 1e-4}
    outputs = run(tight, works)
    for name in works:
        assert_same(outputs, expected, name)


def test_an_earlier_conversation_is_not_computed_again(engine: Engine, tokenizer: Tokenizer) -> None:
    first = run(engine, {"a": generate("你好")})["a"]
    said = text_of(first)
    turns = ((*turn("user", "你好"), *turn("assistant", said)),)
    second = run(engine, {"b": Generate(prompt("谢谢", turns=turns), GREEDY)})["b"]
    usage = completion_of(first).usage
    assert completion_of(second).usage.cached_tokens >= usage.prompt_tokens


def test_a_pinned_head_is_computed_once_and_survives_pressure(make_engine: MakeEngine, tokenizer: Tokenizer) -> None:
    engine = make_engine()
    head = prompt("").head
    [pinned] = run(engine, {"pin": Pin(head)})["pin"]
    assert pinned.item == Pinned(len(tokenizer.encode(head)))
    for n in range(40):  # more distinct text than the memory holds
        run(engine, {"x": Score(Prompt((), (), (Text(f"{n} " + "the colour " * 60),)), ("正面",))})
    scores = scores_of(run(engine, {"a": score("你好")})["a"])
    assert scores.usage.cached_tokens == pinned.item.num_tokens


def test_more_pinned_heads_than_memory_allows_are_refused(engine: Engine) -> None:
    heads = [(Text("".join(chr(0x4E00 + 80 * n + i) for i in range(80))),) for n in range(8)]
    items = [run(engine, {"pin": Pin(head)})["pin"][0].item for head in heads]
    assert isinstance(items[0], Pinned)
    assert isinstance(items[-1], InvalidSettings)
    assert "--kv-mb" in items[-1].message
    assert scores_of(run(engine, {"a": score("你好")})["a"]).labels


def test_a_seed_gives_the_same_text_alone_and_in_a_batch(make_engine: MakeEngine) -> None:
    def sampled(seed: int) -> Work:
        return generate(
            "你好", Sampling(max_tokens=16, temperature=1.0, top_p=1, top_k=0, repetition_penalty=1, seed=seed)
        )

    alone = {str(seed): text_of(run(make_engine(), {"a": sampled(seed)})["a"]) for seed in range(4)}
    together = run(make_engine(), {**{str(seed): sampled(seed) for seed in range(4)}, "other": score("x")})
    assert {name: text_of(together[name]) for name in alone} == alone
    assert len(set(alone.values())) == 4


def test_without_a_seed_every_answer_differs(engine: Engine) -> None:
    hot = Sampling(max_tokens=16, temperature=1.0, top_p=1, top_k=0, repetition_penalty=1)
    outputs = run(engine, {str(n): generate("你好", hot) for n in range(3)})
    assert len({text_of(each) for each in outputs.values()}) == 3


@pytest.mark.parametrize("num_steps", [0, 1, 2, 4, 9])
def test_abort_frees_the_sequence_in_every_phase(in_either: MakeEngine, alone: dict, num_steps: int) -> None:
    engine = in_either(max_batch_tokens=16)
    for name, work in WORKS.items():
        engine.add(name, work, arrived_s=engine.clock())
    seen = [output.request_id for _ in range(num_steps) for output in engine.step() if output.is_last]
    for name in WORKS:
        if name != "labels":
            engine.abort(name)
            engine.check_integrity()
    assert engine.counters.running <= 1
    outputs = finish(engine)
    if "labels" in seen:
        assert outputs == {}
    else:
        assert set(outputs) == {"labels"}
        assert_same(outputs, alone, "labels")
    assert_same(run(engine, {"long": WORKS["long"]}), alone, "long")


def test_aborting_an_unknown_request_does_nothing(engine: Engine) -> None:
    engine.abort("nobody")
    assert not engine.has_work
    assert engine.step() == []


def test_a_decision_does_not_wait_for_answers(make_engine: MakeEngine) -> None:
    engine = make_engine()
    long = Sampling(max_tokens=100, temperature=1.5, top_k=0, top_p=1, repetition_penalty=1)
    for n in range(12):
        engine.add(f"answer {n}", generate(f"{n}", long), arrived_s=0.0)
    for _ in range(8):
        engine.step()
    engine.add("decision", score("你好"), arrived_s=0.0)
    assert [output.request_id for output in engine.step() if not output.request_id.startswith("answer")] == ["decision"]
    for n in range(12):
        engine.abort(f"answer {n}")
    assert not engine.has_work
    engine.check_integrity()


def test_an_answer_is_a_delta_for_every_token_and_ends_once(engine: Engine) -> None:
    outputs = run(engine, {"a": generate("你好", SAMPLED)})["a"]
    assert [output.is_last for output in outputs] == [False] * (len(outputs) - 1) + [True]
    assert {len(delta.token_ids) for delta in deltas_of(outputs)} == {1}
    assert completion_of(outputs).usage.completion_tokens == len(deltas_of(outputs))


def test_a_stop_string_ends_the_answer_and_is_not_in_it(make_engine: MakeEngine) -> None:
    plain = Sampling(max_tokens=30, temperature=1.2, top_k=0, top_p=1, repetition_penalty=1, seed=3)
    text = text_of(run(make_engine(), {"a": generate("你好", plain)})["a"])
    stop = text[4:7]
    stopped = run(make_engine(), {"a": generate("你好", Sampling(**(vars(plain) | {"stop": (stop,)})))})["a"]
    assert text_of(stopped) == text[: text.index(stop)]
    assert completion_of(stopped).finish_reason == "stop"


def test_only_text_and_end_tokens_are_ever_drawn(engine: Engine, tokenizer: Tokenizer) -> None:
    # The output matrix has 640 rows, the tokenizer fewer tokens; the others are never drawn.
    wild = Sampling(max_tokens=100, temperature=5.0, top_k=0, top_p=1, repetition_penalty=1)
    outputs = run(engine, {str(n): generate("x", wild) for n in range(6)})
    drawn = {token for each in outputs.values() for token in ids_of(each)}
    assert len(drawn) > 100
    assert drawn <= tokenizer.text_ids | tokenizer.end_ids
