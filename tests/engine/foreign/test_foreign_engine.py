"""Answers as of `generate`, scores as of a plain forward pass; batches, kept prefixes and other company change nothing."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

import pytest
import torch

from qwen_aio.core import Prompt, Sampling, Text
from qwen_aio.engine.requests import Generate, Output, Pin, Pinned, Score, Work
from qwen_aio.errors import ContextExceeded, ContextTooSmall, InvalidRequest, InvalidSettings
from qwen_aio.result import Truncation
from tests.engine.foreign.conftest import Example, LoadExample
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

SAMPLED = Sampling(max_tokens=10, temperature=0.9, top_p=0.95, top_k=30, repetition_penalty=1.1, seed=7)
LABELS = ("正面", "负面", "positive, thank you", "positive, 谢谢", "positive")
LONG = "the colour is not like the picture, a little disappointed " * 2  # longer than gemma's window here
WORKS: dict[str, Work] = {
    "short": generate("你好"),
    "long": generate(LONG),
    "sampled": generate("thank you", SAMPLED),
    "penalties": generate("你好", Sampling(max_tokens=9, temperature=0, repetition_penalty=1.3, frequency_penalty=1)),
    "labels": score("the parcel arrived today"),
    "phrases": score("今天天气真好", *LABELS),
    "long decision": score(LONG, *LABELS),
    "twin": score("the parcel arrived today"),
}


def plain_scores(example: Example, asked: Score) -> list[float]:
    """By one full forward pass a continuation, without any cache."""
    engine = example.engine()
    ids = engine.encode(asked.prompt)
    found = []
    for continuation in example.loaded.prompts.continuations(asked.prompt, asked.continuations):
        with torch.inference_mode():
            logits = example.oracle(torch.tensor([ids + continuation]), use_cache=False).logits[0].log_softmax(-1)
        rows = zip(range(len(ids) - 1, len(ids) + len(continuation) - 1), continuation, strict=True)
        found.append(sum(float(logits[row, token]) for row, token in rows))
    return found


def generated(example: Example, ids: list[int], *, num_tokens: int) -> list[int]:
    found = example.oracle.generate(
        torch.tensor([ids]),
        max_new_tokens=num_tokens,
        do_sample=False,
        eos_token_id=sorted(example.loaded.end_ids),
        pad_token_id=0,
    )
    return found[0, len(ids) :].tolist()


def assert_same(outputs: Mapping[str, list[Output]], expected: Mapping[str, list[Output]]) -> None:
    for name, work in WORKS.items():
        if isinstance(work, Generate):
            assert ids_of(outputs[name]) == ids_of(expected[name]), name
            assert text_of(outputs[name]) == text_of(expected[name]), name
        else:
            assert logprobs_of(outputs[name]) == pytest.approx(logprobs_of(expected[name]), abs=1e-4), name


@pytest.mark.parametrize("text", ["你好", LONG])
def test_greedy_answers_are_those_of_generate(example: Example, text: str) -> None:
    engine = example.engine()
    outputs = run(engine, {"a": generate(text)})["a"]
    expected = generated(example, engine.encode(prompt(text)), num_tokens=GREEDY.max_tokens)
    assert ids_of(outputs) == expected
    decoded = example.tokenizer.decode(expected, skip_special_tokens=True)
    if "\ufffd" not in decoded:  # of broken characters, each library makes something else
        assert text_of(outputs) == decoded.strip()
    assert engine.decode(expected, stop=()) == "".join(delta.text for delta in deltas_of(outputs))[: len(decoded)]


def test_scores_are_those_of_a_plain_forward_pass(example: Example) -> None:
    for name in ("labels", "phrases", "long decision"):
        asked = WORKS[name]
        assert isinstance(asked, Score)
        outputs = run(example.engine(max_batch_tokens=16), {name: asked})[name]
        assert logprobs_of(outputs) == pytest.approx(plain_scores(example, asked), abs=1e-4)


@pytest.mark.parametrize("kv_mb", [1, 16])  # answers decode one by one, and together
def test_many_at_once_give_what_each_gives_alone(example: Example, kv_mb: int) -> None:
    alone = {name: run(example.engine(), {name: work})[name] for name, work in WORKS.items()}
    assert_same(run(example.engine(max_batch_tokens=24, kv_mb=kv_mb), WORKS), alone)


def test_what_is_reused_of_a_long_prompt_takes_no_more_than_its_own_memory(load_example: LoadExample) -> None:
    model = load_example("llama").loaded.model
    whole = model.new_cache()
    model.forward([[1] * 100], whole, num_logits=1)
    begun = model.copy_of(whole, length=10)
    layers = begun.layers
    assert begun.get_seq_length() == 10
    assert sum(part.untyped_storage().nbytes() for each in layers for part in (each.keys, each.values)) == (
        10 * model.token_bytes
    )
    assert torch.equal(layers[0].keys, whole.layers[0].keys[..., :10, :])


def test_what_is_kept_changes_nothing_but_the_work(example: Example) -> None:
    fresh = run(example.engine(), WORKS)
    engine = example.engine()
    pinned = run(engine, {"pin": Pin(prompt("").head)})["pin"][0].item
    assert isinstance(pinned, Pinned)
    for _ in range(2):
        outputs = run(engine, WORKS)
        assert_same(outputs, fresh)
    cached = [scores_of(outputs[name]).usage.cached_tokens for name in ("labels", "phrases")]
    assert min(cached) >= pinned.num_tokens - 1  # the last token of a prefix may become another one before a text
    assert example.loaded.model.can_crop == (example.family.name != "gemma")


def test_a_conversation_that_goes_on_is_not_computed_again(example: Example) -> None:
    engine = example.engine()
    first = run(engine, {"first": generate("你好", Sampling(max_tokens=24, temperature=0))})["first"]
    turns = ((*turn("user", "你好"), *turn("assistant", text_of(first))),)
    again = Generate(prompt("thank you", turns=turns), GREEDY)
    usage = completion_of(run(engine, {"again": again})["again"]).usage
    assert usage.cached_tokens >= completion_of(first).usage.prompt_tokens - 2 or not example.loaded.model.can_crop
    assert ids_of(run(engine, {"again": again})["again"]) == ids_of(run(example.engine(), {"again": again})["again"])


def test_an_aborted_request_leaves_nothing(example: Example) -> None:
    engine = example.engine(max_batch_tokens=16)
    for name, work in WORKS.items():
        engine.add(name, work, arrived_s=engine.clock())
    for _ in range(3):
        engine.step()
    for name in WORKS:
        engine.abort(name)
    assert not engine.has_work
    assert engine.counters.running == 0
    engine.check_integrity()
    assert_same(run(engine, WORKS), run(example.engine(), WORKS))


def test_requests_that_come_and_go_get_what_each_gets_alone(example: Example) -> None:
    """After every step no more is held than the memory allows."""
    limits = {"max_batch_tokens": 32, "max_running": 4, "max_answers": 2}
    alone = {name: run(example.engine(**limits), {name: work})[name] for name, work in WORKS.items()}
    engine, chance = example.engine(**limits), Random(3)
    open_now: dict[str, str] = {}  # request id -> name of its work
    found: dict[str, list[Output]] = {}
    for number in range(120):
        if chance.random() < 0.35:
            name = chance.choice(list(WORKS))
            open_now[f"{number}"] = name
            engine.add(f"{number}", WORKS[name], arrived_s=engine.clock())
        if open_now and chance.random() < 0.1:
            engine.abort(gone := chance.choice(list(open_now)))
            del open_now[gone]
        for output in engine.step():
            found.setdefault(output.request_id, []).append(output)
            if output.is_last:
                name = open_now.pop(output.request_id)
                assert_same(alone | {name: found[output.request_id]}, alone)
        engine.check_integrity()
    assert engine.counters.completed > 20


def test_a_seed_repeats_and_a_resumed_answer_is_the_uninterrupted_one(example: Example) -> None:
    whole = run(example.engine(), {"a": generate("thank you", SAMPLED)})["a"]
    assert ids_of(run(example.engine(), {"a": generate("thank you", SAMPLED)})["a"]) == ids_of(whole)
    for count in range(1, len(ids_of(whole)) + 1):
        begun = tuple(ids_of(whole)[:count])
        engine = example.engine()
        rest = run(engine, {"a": Generate(prompt("thank you"), SAMPLED, resume=begun)})["a"]
        assert (*begun, *ids_of(rest)) == tuple(ids_of(whole))
        sent = "".join(delta.text for delta in deltas_of(whole)[:count])
        assert sent + text_of(rest) == text_of(whole)
        assert completion_of(rest).finish_reason == completion_of(whole).finish_reason


def test_an_answer_ends_at_a_stop_string_and_lists_log_probabilities(example: Example) -> None:
    answers = {text: text_of(run(example.engine(), {"a": generate(text)})["a"]) for text in ("你好", "thanks", LONG)}
    text, whole = max(answers.items(), key=lambda item: len(item[1]))
    stop = whole[2:4]
    work = Generate(prompt(text), Sampling(max_tokens=12, temperature=0, repetition_penalty=1, stop=(stop,)), (), 3)
    outputs = run(example.engine(), {"a": work})["a"]
    assert text_of(outputs) == whole[: whole.index(stop)].rstrip()
    assert completion_of(outputs).finish_reason == "stop"
    listed = [sampled for delta in deltas_of(outputs) for sampled in delta.logprobs]
    assert all(len(each.top) == 3 and each.token == each.top[0] for each in listed)
    assert len(listed) == len(ids_of(outputs))


def test_a_token_that_ends_the_template_s_turns_ends_an_answer(example: Example) -> None:
    end = example.tokenizer.convert_tokens_to_ids(example.family.end)
    assert end in example.loaded.end_ids
    outputs = run(example.engine(), {"a": Generate(prompt("你好"), GREEDY, resume=(end,))})["a"]
    assert completion_of(outputs).finish_reason == "stop"
    assert text_of(outputs) == ""


def test_old_turns_go_first_and_then_the_middle_of_the_text(example: Example) -> None:
    turns = tuple((*turn("user", f"{number} {LONG}"), *turn("assistant", "谢谢")) for number in range(9))
    engine = example.engine()
    completion = completion_of(run(engine, {"a": Generate(prompt("你好", turns=turns), GREEDY)})["a"])
    assert 0 < completion.truncation.dropped_turns < 9
    assert not completion.truncation.truncated
    kept = prompt("你好", turns=turns[completion.truncation.dropped_turns :])
    assert completion.usage.prompt_tokens == len(engine.encode(kept))
    more = prompt("你好", turns=turns[completion.truncation.dropped_turns - 1 :])
    assert len(engine.encode(more)) > engine.context.tokens - GREEDY.max_tokens

    cut = completion_of(run(engine, {"b": Generate(prompt("数" * 2000, turns=turns), GREEDY)})["b"])
    assert cut.truncation == Truncation(9, truncated=True)
    assert cut.usage.prompt_tokens == engine.context.tokens - GREEDY.max_tokens


def test_what_cannot_fit_is_refused(example: Example) -> None:
    engine = example.engine()
    whole = prompt("数" * 2000)
    with pytest.raises(ContextExceeded):
        must_fit = Prompt(whole.head, whole.turns, whole.body, must_fit=True)
        engine.add("a", Generate(must_fit, GREEDY), arrived_s=0)
    with pytest.raises(ContextTooSmall):
        engine.add("a", Generate(prompt("数" * 2000, system="数" * 900), GREEDY), arrived_s=0)
    with pytest.raises(InvalidRequest, match="hold no token"):
        engine.add("a", Generate(prompt("你好"), GREEDY, resume=(10**6,)), arrived_s=0)
    with pytest.raises(InvalidRequest, match="empty continuation"):
        engine.add("a", score("你好", ""), arrived_s=0)
    assert not engine.has_work


def test_prefixes_take_a_quarter_of_the_memory_at_most(load_example: LoadExample) -> None:
    engine = load_example("llama").engine(max_context=2048)
    item = run(engine, {"a": Pin(turn("system", "数" * 150))})["a"][0].item
    assert isinstance(item, InvalidSettings)
    engine.check_integrity()


def test_a_text_alone_is_continued_behind_what_the_tokenizer_puts_in_front(example: Example) -> None:
    engine = example.engine()
    alone = Prompt((), (), (Text("the parcel", can_cut=True),))
    assert engine.encode(alone) == example.tokenizer("the parcel")["input_ids"]
    outputs = run(engine, {"a": Generate(alone, GREEDY)})["a"]
    assert ids_of(outputs) == generated(example, engine.encode(alone), num_tokens=GREEDY.max_tokens)


def test_an_answer_keeps_to_a_schema(example: Example) -> None:
    engine = example.engine()
    schema = '{"type": "object", "properties": {"a": {"enum": ["正面", "no"]}}, "required": ["a"],'
    schema += ' "additionalProperties": false}'
    sampling = Sampling(max_tokens=60, temperature=0)
    outputs = run(engine, {"a": Generate(prompt("你好"), sampling, grammar=engine.compile(schema))})["a"]
    assert text_of(outputs) in ('{"a": "正面"}', '{"a": "no"}')


def test_a_failing_request_ends_alone(example: Example) -> None:
    engine = example.engine()
    grammar = engine.compile('{"enum": ["no"]}')
    with pytest.raises(InvalidRequest):
        grammar.accept(example.loaded.prompts.tokenizer.encode_text("x")[0])
    outputs = run(engine, {"bad": Generate(prompt("你好"), GREEDY, grammar=grammar), "good": generate("你好")})
    assert isinstance(outputs["bad"][-1].item, InvalidRequest)
    assert ids_of(outputs["good"]) == ids_of(run(example.engine(), {"good": generate("你好")})["good"])
    assert finish(engine) == {}
