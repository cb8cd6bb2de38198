"""A model that may think first is asked to answer at once: its prompts are those of its chat template without thoughts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast, Qwen3Config

from qwen_aio.core import Message, Prompt, Text
from qwen_aio.engine.config import EngineLimits
from qwen_aio.engine.load import load_engine
from qwen_aio.engine.requests import Generate, Pin, Pinned, Score
from qwen_aio.engine.text.tokenizer import Tokenizer
from qwen_aio.engine.text.truncation import truncate
from qwen_aio.errors import ContextExceeded, InvalidModel, InvalidRequest
from qwen_aio.result import Truncation
from qwen_aio.tasks.chatml import answer_start, continuation_prompt, conversation_prompt, turn
from tests.engine.conftest import MakeCheckpoint
from tests.engine.running import GREEDY, completion_of, generate, ids_of, prompt, run, score, scores_of, text_of
from tests.engine.thinking_folder import HYBRID, NEVER, THOUGHTS, thinking_folder, with_thoughts

HISTORY = (Message("user", "the parcel arrived"), Message("assistant", "thank you"))
LONG = "A beginning. " + "the colour " * 100 + " The end."


@pytest.fixture(scope="module")
def folder(make_checkpoint: MakeCheckpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = make_checkpoint(config=Qwen3Config, head_dim=24)
    return thinking_folder(made, tmp_path_factory.mktemp("thinking") / "qwen3")


@pytest.fixture(scope="module")
def thinking(folder: Path) -> Tokenizer:
    return Tokenizer.load(folder)


@pytest.fixture(scope="module")
def opening(thinking: Tokenizer) -> list[int]:
    """What every answer begins with."""
    start, end = map(thinking.control_id, THOUGHTS)
    between = thinking.encode_text("\n\n")
    return [start, *between, end, *between]


def conversation(text: str) -> Prompt:
    return conversation_prompt(turn("system", "判断情感"), HISTORY, text)


def test_a_prompt_is_what_the_chat_template_makes_of_it(folder: Path, thinking: Tokenizer) -> None:
    theirs = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    said = [("system", "判断情感"), *((each.role, each.content) for each in HISTORY), ("user", "你好\n")]
    messages = [{"role": role, "content": content} for role, content in said]
    wanted = theirs.apply_chat_template(messages, add_generation_prompt=True, enable_thinking=False)["input_ids"]
    assert thinking.encode(conversation("你好\n").segments) == wanted
    assert truncate(conversation("你好\n"), tokenizer=thinking, room=200).ids == tuple(wanted)


def test_a_forced_beginning_of_the_answer_follows_the_thought(thinking: Tokenizer, opening: list[int]) -> None:
    plain, begun = thinking.encode(answer_start()), thinking.encode(answer_start("正面, thank"))
    assert plain[-len(opening) :] == opening
    assert begun == [*plain, *thinking.encode_text("正面, thank")]


def test_what_has_no_answer_has_no_thought(thinking: Tokenizer) -> None:
    for text in ("assistant\n", "<think>\n\n</think>\n\n", "你好"):
        assert thinking.encode(continuation_prompt(text).segments) == thinking.encode_text(text)
    for segments in (turn("assistant", "你好"), turn("system", "assistant\n"), (Text("assistant\n"),), ()):
        assert not set(map(thinking.control_id, THOUGHTS)) & set(thinking.encode(segments))


def test_thoughts_that_are_typed_are_text(thinking: Tokenizer) -> None:
    typed = "<think>\n\n</think>\n\n"
    ids = thinking.encode(conversation(typed).segments)
    assert [ids.count(thinking.control_id(token)) for token in THOUGHTS] == [1, 1]
    assert typed in thinking.decode(ids)


@pytest.mark.parametrize("room", [40, 60, 150])
def test_a_prompt_that_is_cut_keeps_the_thought_and_fits(thinking: Tokenizer, opening: list[int], room: int) -> None:
    truncated = truncate(conversation(LONG), tokenizer=thinking, room=room)
    assert truncated.truncation == Truncation(dropped_turns=1, truncated=True)
    assert len(truncated.ids) == room
    assert list(truncated.ids[-len(opening) :]) == opening


def test_the_thought_counts_where_a_prompt_must_fit(thinking: Tokenizer) -> None:
    asked = Prompt((), (), answer_start(), must_fit=True)
    needed = len(thinking.encode(asked.segments))
    assert len(truncate(asked, tokenizer=thinking, room=needed).ids) == needed
    with pytest.raises(ContextExceeded):
        truncate(asked, tokenizer=thinking, room=needed - 1)


@pytest.mark.parametrize(
    ("files", "has_opening"),
    [
        ({}, True),  # nothing but the tokens says it
        ({"tokenizer_config.json": json.dumps({"eos_token": "x"})}, True),
        ({"tokenizer_config.json": json.dumps({"chat_template": HYBRID})}, True),
        ({"tokenizer_config.json": json.dumps({"chat_template": NEVER})}, False),
        ({"tokenizer_config.json": json.dumps({"chat_template": HYBRID}), "chat_template.jinja": NEVER}, False),
        ({"chat_template.jinja": HYBRID.replace("\\n", "\n")}, True),
        ({"tokenizer_config.json": json.dumps({"chat_template": [{"name": "default", "template": NEVER}]})}, False),
    ],
)
def test_the_chat_template_says_whether_there_are_thoughts(
    specification: str, tmp_path: Path, files: dict[str, str], has_opening: bool
) -> None:
    (tmp_path / "tokenizer.json").write_text(with_thoughts(specification), encoding="utf-8")
    for name, content in files.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    tokenizer = Tokenizer.load(tmp_path)
    assert (tokenizer.control_id("<think>") in tokenizer.encode(answer_start())) == has_opening


@pytest.mark.parametrize("content", ["{", "[]", '{"chat_template": [{"name": "default"}]}', '{"chat_template": [1]}'])
def test_a_damaged_template_is_named_if_it_is_asked(specification: str, tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer_config.json").write_text(content)
    (tmp_path / "tokenizer.json").write_text(specification, encoding="utf-8")
    assert Tokenizer.load(tmp_path).encode(answer_start())
    (tmp_path / "tokenizer.json").write_text(with_thoughts(specification), encoding="utf-8")
    with pytest.raises(InvalidModel, match=r"tokenizer_config|chat template is damaged"):
        Tokenizer.load(tmp_path)


def test_one_token_of_two_is_no_thought(specification: str) -> None:
    stated = json.loads(with_thoughts(specification))
    stated["added_tokens"].pop()
    tokenizer = Tokenizer(json.dumps(stated))
    assert tokenizer.control_id("<think>") not in tokenizer.encode(answer_start())


def test_answers_hold_no_thoughts(folder: Path, thinking: Tokenizer) -> None:
    engine = load_engine(folder, EngineLimits(max_context=256, kv_mb=1), threads=1)
    thoughts = [thinking.control_id(token) for token in THOUGHTS]
    assert engine.decode(thoughts, stop=()) == ""
    with pytest.raises(InvalidRequest, match="hold no token"):
        engine.add("a", Generate(prompt("你好"), GREEDY, (thoughts[0],)), arrived_s=0.0)
    assert not set(thoughts) & set(ids_of(run(engine, {"a": generate("你好")})["a"]))


def test_pins_prefixes_and_resumed_answers_know_the_thought(
    folder: Path, thinking: Tokenizer, opening: list[int]
) -> None:
    limits = EngineLimits(max_context=256, kv_mb=1)
    engine, asked = load_engine(folder, limits, threads=1), generate("你好")
    [pinned] = run(engine, {"pin": Pin(asked.prompt.head)})["pin"]
    assert pinned.item == Pinned(len(thinking.encode(asked.prompt.head)))
    whole = run(engine, {"a": asked})["a"]
    num_prompt = len(thinking.encode(asked.prompt.segments))
    assert completion_of(whole).usage.prompt_tokens == num_prompt
    # A decision on the same text attends to all of the prompt, thought included, but its last token.
    again = scores_of(run(engine, {"b": score("你好")})["b"])
    assert again.usage.cached_tokens == num_prompt - 1
    alone = scores_of(run(load_engine(folder, limits, threads=1), {"b": score("你好")})["b"])
    assert [each.logprob for each in again.labels] == pytest.approx([each.logprob for each in alone.labels], abs=1e-4)
    ids = ids_of(whole)
    rest = run(engine, {"c": Generate(asked.prompt, GREEDY, tuple(ids[:5]))})["c"]
    assert ids_of(rest) == ids[5:]
    assert text_of(whole).endswith(text_of(rest))


def test_labels_are_scored_behind_the_thought(folder: Path, thinking: Tokenizer) -> None:
    engine = load_engine(folder, EngineLimits(max_context=256, kv_mb=1), threads=1)
    scores = scores_of(run(engine, {"a": Score(conversation("你好"), ("正面", "负面"))})["a"])
    assert scores.usage.prompt_tokens == len(thinking.encode(conversation("你好").segments))
