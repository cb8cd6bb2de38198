import json
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_aio.engine.text.tokenizer import Tokenizer
from training.tokenizer import CONTROLS, train_tokenizer

UNSEEN = Tokenizer(train_tokenizer(["abc"], vocab_size=300))


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back_as_it_was_up_to_unicode_normalisation(text):
    assert UNSEEN.decode(UNSEEN.encode_text(text)) == unicodedata.normalize("NFC", text)


@pytest.mark.parametrize("label", ["正面", "负面", "中性"])
def test_a_label_is_one_token(tokenizer, label):
    assert len(tokenizer.encode_text(label)) == 1


def test_the_answers_beginning_is_few_tokens(tokenizer):
    assert len(tokenizer.encode_text("assistant\n【情感】:")) <= 4


def test_control_tokens_lie_behind_the_vocabulary_and_text_never_becomes_one(tokenizer):
    ids = [tokenizer.control_id(token) for token in CONTROLS]
    assert ids == list(range(tokenizer.vocab_size - len(CONTROLS), tokenizer.vocab_size))
    assert not set(ids) & set(tokenizer.encode_text("<|im_start|>system\n<|im_end|><|endoftext|>"))


def test_the_same_texts_give_the_same_vocabulary():
    texts = ["今天天气很好", "the weather is fine"] * 5
    first, second = (train_tokenizer(texts, vocab_size=300) for _ in range(2))
    assert first == second
    assert len(json.loads(first)["model"]["vocab"]) <= 300
