"""Prompts of other families: ids as of their own chat templates, and no control token out of what people write."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qwen_aio.core import Prompt, Text
from qwen_aio.engine.foreign.load import load_foreign, read_prompts
from qwen_aio.engine.foreign.model import max_positions_of
from qwen_aio.engine.foreign.tokenizer import ForeignTokenizer
from qwen_aio.errors import InvalidModel, InvalidRequest
from tests.engine.foreign.conftest import Example, LoadExample
from tests.engine.foreign.families import FAMILIES
from tests.engine.running import SYSTEM, prompt, turn

PLAIN = (
    "the parcel arrived",
    "  two spaces\n\nand lines \n",
    "刚收到货,颜色和图片不太一样",
    "🙂 é ǅ\u2003\u3000x",
    "<b>",
    " ",
)
CONTROLS = [control for family in FAMILIES.values() for control in (*family.controls, "<unk>", "<s>", "</s>")]
HOSTILE = st.lists(st.sampled_from([*CONTROLS, "<0x0A>", "▁", "user\n", "\n\n", " "]) | st.text(max_size=8), max_size=8)


def template_ids(example: Example, messages: list[tuple[str, str]]) -> list[int]:
    """By transformers alone; gemma's own template refuses system messages."""
    if example.family.name == "gemma" and messages[0][0] == "system":
        (_, system), (_, user), *others = messages
        messages = [("user", f"{system}\n\n{user}"), *others]
    stated = [{"role": role, "content": content} for role, content in messages]
    ids = example.tokenizer.apply_chat_template(stated, add_generation_prompt=True, return_dict=False)
    return list(ids)


@pytest.mark.parametrize("text", PLAIN)
def test_the_ids_are_those_of_the_family_s_own_template(example: Example, text: str) -> None:
    engine = example.engine()
    assert engine.encode(prompt(text)) == template_ids(example, [("system", SYSTEM), ("user", text)])
    turns = ((*turn("user", text), *turn("assistant", "谢谢")),)
    messages = [("user", text), ("assistant", "谢谢"), ("user", "你好")]
    assert engine.encode(prompt("你好", system="", turns=turns)) == template_ids(example, messages)


def test_a_forced_beginning_of_the_answer_goes_on_where_the_template_ends(example: Example) -> None:
    asked = prompt("你好")
    *before, opened = asked.body
    forced = Prompt(asked.head, (), (*before, type(opened)("assistant\n【情感】:")))
    ids = example.engine().encode(forced)
    assert ids[: len(ids) - 12] == template_ids(example, [("system", SYSTEM), ("user", "你好")])[: len(ids) - 12]
    assert example.tokenizer.decode(ids).endswith("【情感】:")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(system=HOSTILE, user=HOSTILE, answer=HOSTILE)
def test_no_text_becomes_a_control_token(example: Example, system: list, user: list, answer: list) -> None:
    """As many control tokens stand in a prompt as in one of harmless texts, and the texts are whole."""
    said = ["".join(parts).encode(errors="ignore").decode() for parts in (system, user, answer)]
    tokenizer, engine = example.loaded.prompts.tokenizer, example.engine()
    turns = ((*turn("user", said[1]), *turn("assistant", said[2])),)
    harmless = ((*turn("user", "x"), *turn("assistant", "x")),)
    ids = engine.encode(prompt(said[1], system=said[0], turns=turns))
    expected = engine.encode(prompt("x", system="x" if said[0] else "", turns=harmless))
    controls = [token for token in ids if token in tokenizer.added_ids]
    assert controls == [token for token in expected if token in tokenizer.added_ids]
    for text in said:
        own = tokenizer.encode_text(text)
        assert tokenizer.added_ids.isdisjoint(own)
        assert tokenizer.added_ids.isdisjoint(example.loaded.prompts.continuations(prompt(""), [text])[0])


@given(text=st.lists(st.sampled_from([*CONTROLS, "the parcel", "你好 🙂", "\n\n", "  "]), max_size=6).map("".join))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_bytes_of_its_tokens_are_the_text(example: Example, text: str) -> None:
    tokenizer = example.loaded.prompts.tokenizer
    assert b"".join(map(tokenizer.token_bytes, tokenizer.encode_text(text))).decode() == text
    assert "".join(tokenizer.divide(text)) == text


def test_a_lone_surrogate_is_refused(example: Example) -> None:
    with pytest.raises(InvalidRequest, match="surrogate"):
        example.engine().encode(prompt("\ud800"))


@pytest.fixture
def changed(load_example: LoadExample, tmp_path: Path) -> Callable[..., Path]:
    """A copy of llama's folder with other values in one of its JSON files; None deletes the file."""

    def change(name: str, values: dict[str, Any] | None) -> Path:
        folder = tmp_path / "changed"
        shutil.copytree(load_example("llama").folder, folder)
        stated = json.loads((folder / name).read_text())
        (folder / name).unlink()
        if values is not None:
            (folder / name).write_text(json.dumps(stated | values))
        return folder

    return change


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "no chat template"),
        ("{% for", "cannot be used"),
        ("{{ messages[0]['content'].missing() }}", "cannot be used"),
        ("{{ bos_token }}hello", "leaves out what the user says"),
    ],
)
def test_a_template_that_cannot_serve_is_refused(changed: Callable[..., Path], template: str, message: str) -> None:
    with pytest.raises(InvalidModel, match=message):
        read_prompts(changed("tokenizer_config.json", {"chat_template": template}))


def test_a_template_may_lie_in_a_file_of_its_own(changed: Callable[..., Path], load_example: LoadExample) -> None:
    folder = changed("tokenizer_config.json", {"chat_template": None})
    (folder / "chat_template.jinja").write_text(FAMILIES["llama"].template)
    prompts, _ = read_prompts(folder)
    assert prompts.segments(prompt("你好")) == load_example("llama").loaded.prompts.segments(prompt("你好"))


def test_a_model_that_may_think_first_is_told_not_to(changed: Callable[..., Path]) -> None:
    thinks = "{% if enable_thinking is not defined or enable_thinking %}<think>{% else %}</think>{% endif %}"
    prompts, _ = read_prompts(changed("tokenizer_config.json", {"chat_template": FAMILIES["llama"].template + thinks}))
    *_, last = prompts.segments(prompt("你好"))
    assert isinstance(last, Text)
    assert last.text.endswith("</think>")


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("config.json", {"quantization_config": {"quant_method": "gptq", "bits": 4}}, "GPTQ to 4 bits"),
        ("config.json", {"model_type": "nonsense", "architectures": ["NonsenseForCausalLM"]}, "cannot load this model"),
        ("config.json", {"num_hidden_layers": 4}, "the weights lack"),
        ("config.json", {"model_type": "mamba", "architectures": ["MambaForCausalLM"]}, "lack|keeps|cannot load"),
        ("tokenizer.json", {"decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True}}, "neither byte-level"),
        ("tokenizer.json", {"model": {}}, "missing or damaged"),
        ("tokenizer.json", None, "missing or damaged"),
    ],
)
def test_what_transformers_would_load_wrongly_is_refused(
    changed: Callable[..., Path], name: str, values: dict[str, Any] | None, message: str
) -> None:
    with pytest.raises(InvalidModel, match=message):
        load_foreign(changed(name, values), threads=1, precision="fp32")


def test_code_that_a_model_brings_is_not_run(changed: Callable[..., Path]) -> None:
    folder = changed("config.json", {"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}})
    (folder / "own.py").write_text(f"open({str(folder / 'run')!r}, 'w')")
    with pytest.raises(InvalidModel):
        load_foreign(folder, threads=1, precision="fp32")
    assert not (folder / "run").exists()


def test_a_known_model_with_code_of_its_own_is_refused(changed: Callable[..., Path]) -> None:
    folder = changed("config.json", {"auto_map": {"AutoModelForCausalLM": "own.Own"}})
    with pytest.raises(InvalidModel, match="brings its own code"):
        load_foreign(folder, threads=1, precision="fp32")


@pytest.mark.parametrize(("kind", "most"), [("longrope", 64), ("dynamic", 64), ("linear", 512)])
def test_positions_that_depend_on_the_length_of_a_prompt_are_not_used(kind: str, most: int) -> None:
    rope = {"rope_type": kind, "original_max_position_embeddings": 64}
    config = SimpleNamespace(max_position_embeddings=512, rope_parameters=rope)
    assert max_positions_of(config) == most


def spaced(pre_tokenizer: dict[str, Any]) -> ForeignTokenizer:
    vocabulary = {letter: number for number, letter in enumerate("▁ab")}
    model = {"type": "BPE", "vocab": vocabulary, "merges": []}
    decoder = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    stated = {"version": "1.0", "added_tokens": [], "model": model, "decoder": decoder, "pre_tokenizer": pre_tokenizer}
    return ForeignTokenizer(json.dumps({**stated, "normalizer": None, "post_processor": None}))


@pytest.mark.parametrize(
    ("scheme", "first", "later"), [("always", " a", " a"), ("first", " a", "a"), ("never", "a", "a")]
)
def test_a_space_stands_where_the_tokenizer_puts_one(scheme: str, first: str, later: str) -> None:
    tokenizer = spaced({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": True})
    assert tokenizer.opened("a", is_first=True) == first
    assert tokenizer.opened("a", is_first=False) == later
    assert tokenizer.opened(" a", is_first=True) == " a"
    assert tokenizer.encode_text("ab") == [1, 2]
