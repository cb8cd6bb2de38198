"""Text stays text, control tokens come from code alone."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as RustTokenizer

from qwen_aio.core import Control, Text
from qwen_aio.engine.text.tokenizer import Tokenizer
from qwen_aio.errors import InvalidModel, InvalidRequest
from tests.engine.conftest import CONTROLS


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize("frame", ["{}", "a{}b", "{}{}", "<|im_start|>system\n{}", "{}\n你好"])
def test_a_typed_control_token_is_only_text(tokenizer: Tokenizer, control: str, frame: str) -> None:
    text = frame.replace("{}", control)
    ids = tokenizer.encode_text(text)
    assert tokenizer.added_ids.isdisjoint(ids)
    assert tokenizer.decode(ids) == text


def test_an_added_token_that_merges_could_spell_is_spelled_in_letters(specification: str) -> None:
    values = json.loads(specification)
    word = "Ġthe"
    word_id = values["model"]["vocab"][word]
    values["added_tokens"].append({**values["added_tokens"][0], "id": word_id, "content": word})
    tokenizer = Tokenizer(json.dumps(values))
    assert word_id in tokenizer.added_ids
    assert word_id not in tokenizer.encode_text("in the house")


def test_controls_are_ids_put_in_by_code(tokenizer: Tokenizer) -> None:
    start = tokenizer.control_id("<|im_start|>")
    assert tokenizer.encode((Control("<|im_start|>"), Text("a"))) == [start, *tokenizer.encode_text("a")]
    with pytest.raises(InvalidModel, match="nobody"):
        tokenizer.encode((Control("<|nobody|>"),))


@given(st.text())
def test_decode_undoes_encode(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode_text(text)) == unicodedata.normalize("NFC", text)


@given(st.text(max_size=20))
def test_the_bytes_of_tokens_are_the_bytes_of_the_text(tokenizer: Tokenizer, specification: str, text: str) -> None:
    ids = tokenizer.encode_text(text)
    assert b"".join(map(tokenizer.token_bytes, ids)).decode() == RustTokenizer.from_str(specification).decode(ids)


def test_added_tokens_and_holes_have_no_bytes(tokenizer: Tokenizer) -> None:
    assert tokenizer.token_bytes(tokenizer.control_id("<|im_end|>")) == b""
    assert tokenizer.token_bytes(10**6) == b""


def test_a_lone_surrogate_is_refused_with_its_place(tokenizer: Tokenizer) -> None:
    with pytest.raises(InvalidRequest, match="position 2"):
        tokenizer.encode_text("ab\ud800")


def test_end_tokens_are_those_of_chatml(tokenizer: Tokenizer) -> None:
    assert tokenizer.end_ids == {tokenizer.control_id("<|im_end|>"), tokenizer.control_id("<|endoftext|>")}


def test_cutting_asked_for_by_the_file_is_switched_off(specification: str, tokenizer: Tokenizer) -> None:
    cutting = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    short = Tokenizer(json.dumps({**json.loads(specification), "truncation": cutting}))
    assert short.encode_text("the colour is not like the picture") == tokenizer.encode_text(
        "the colour is not like the picture"
    )


def test_it_has_the_tokens_the_library_finds(tokenizer: Tokenizer, specification: str) -> None:
    whole = RustTokenizer.from_str(specification)
    added = whole.get_added_tokens_decoder()
    assert {tokenizer.control_id(token.content): token.content for token in added.values()} == {
        token_id: token.content for token_id, token in added.items()
    }
    assert tokenizer.added_ids == set(added)
    assert tokenizer.added_ids | tokenizer.text_ids == set(whole.get_vocab(with_added_tokens=True).values())
    assert tokenizer.special_texts == tuple(sorted(token.content for token in added.values() if token.special))


@pytest.mark.parametrize("content", ["Ġthe", "<|nobody|>"])
def test_an_added_token_with_another_token_s_id_is_refused(
    tmp_path: Path, specification: str, tokenizer: Tokenizer, content: str
) -> None:
    values = json.loads(specification)
    [taken] = tokenizer.encode_text("a")
    values["added_tokens"].append({**values["added_tokens"][0], "id": taken, "content": content})
    (tmp_path / "tokenizer.json").write_text(json.dumps(values))
    with pytest.raises(InvalidModel, match="disagree"):
        Tokenizer.load(tmp_path)


def test_a_tokenizer_without_chatml_is_refused(specification: str) -> None:
    values = json.loads(specification)
    values["added_tokens"] = values["added_tokens"][:1]
    with pytest.raises(InvalidModel, match=r"im_start.*im_end"):
        Tokenizer(json.dumps(values))


def test_a_byte_order_mark_changes_nothing(tmp_path: Path, specification: str, tokenizer: Tokenizer) -> None:
    (tmp_path / "tokenizer.json").write_text(specification, encoding="utf-8-sig")
    assert Tokenizer.load(tmp_path).encode_text("快递") == tokenizer.encode_text("快递")


@pytest.mark.parametrize("content", [None, "", "{", "{}", "[]", '{"model": 3}'])
def test_a_missing_or_damaged_file_is_named(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(InvalidModel, match=r"tokenizer\.json is missing or damaged"):
        Tokenizer.load(tmp_path)
