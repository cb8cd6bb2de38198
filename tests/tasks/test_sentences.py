import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_aio.tasks.sentences import MAX_CHARS, first_sentence, joined, sentences


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("包装很好。物流慢！颜色不对？", ["包装很好。", "物流慢！", "颜色不对？"]),
        ("It costs 3.50 at example.com. Too much!", ["It costs 3.50 at example.com.", "Too much!"]),
        ("第一行\n第二行\n\n", ["第一行", "第二行"]),
        ("他说“太慢了。”然后走了。", ["他说“太慢了。”", "然后走了。"]),
        ("等等……还有。", ["等等……", "还有。"]),
        ("!!! ... ——", []),
        ("", []),
    ],
)
def test_sentences(text, found):
    assert sentences(text) == found


@given(st.text(alphabet="好a1.。!？,，\n “”…", max_size=600))
def test_every_sentence_stands_in_the_text_and_all_letters_stand_in_a_sentence(text):
    found = sentences(text)
    assert all(sentence in text and len(sentence) <= MAX_CHARS for sentence in found)
    letters = [character for character in text if character.isalnum()]
    assert [character for character in "".join(found) if character.isalnum()] == letters


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("你好！我", "你好！"),
        ("你好！", None),  # more marks may follow
        ("Version 3.5 is out. It", "Version 3.5 is out."),
        ("no end yet", None),
        ("\n……你好！我", "\n……你好！"),
    ],
)
def test_the_first_sentence_is_known_once_something_follows(text, first):
    assert first_sentence(text) == first


def test_western_sentences_are_joined_with_a_space():
    assert joined(["It broke.", "Too late!"]) == "It broke. Too late!"
    assert joined(["太慢了。", "差评！"]) == "太慢了。差评！"
