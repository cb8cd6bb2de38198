import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_aio.tasks.normalise import calm, narrow

STRESSED = st.text(alphabet="aAbB好哈😡👍🏽\u200d\ufe0f0９ｘ .,!'\n", max_size=60)


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("  太慢了 \n", "太慢了"),
        ("\u3000太慢了\u00a0", "太慢了"),
        ("ＡＢＣ ｘｙｚ ０１９", "ABC xyz 019"),
        ("贵！（真的）① ² ½ ％", "贵！（真的）① ² ½ ％"),  # punctuation and numbers of other kinds stay
        ("soooooo good", "soooooo good"),
    ],
)
def test_white_space_and_full_width_letters(typed, read):
    assert narrow(typed) == read


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("soooooo gooood", "sooo goood"),
        ("太太太太太好吃了", "太太太好吃了"),
        ("哈哈哈", "哈哈哈"),
        ("www.example.com III", "www.example.com III"),
        ("😡😡😡😡😡", "😡😡😡"),
        ("👍🏽👍🏽👍🏽👍🏽", "👍🏽👍🏽👍🏽"),
        ("SooOOOOo", "SooO"),
        ("!!!!!!", "!!!!!!"),
        ("10000000", "10000000"),
        ("RTX4090TIIIIII", "RTX4090TIIIIII"),  # a word with a digit may be a model number
        ("等了3天哈哈哈哈哈哈", "等了3天哈哈哈"),
    ],
)
def test_long_runs_are_shortened(typed, read):
    assert calm(typed) == (read, typed != read)


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("THE ROOM WAS DIRTY!!!", "the room was dirty!!!"),
        ("I'M SO ANGRY", "i'm so angry"),
        ("GOOD", "good"),
        ("OK", "OK"),
        ("USB", "USB"),
        ("I HATE THIS phone", "i hate this phone"),
        ("the USB HDMI adapter", "the USB HDMI adapter"),
        ("这个 APP 不错", "这个 APP 不错"),
        ("用USB、HDMI、VGA接口", "用USB、HDMI、VGA接口"),
        ("THE RTX4090TI IS GREAT", "the RTX4090TI is great"),
        ("It broke. WORST SHOP I KNOW.", "It broke. worst shop i know."),
        ("СОВСЕМ ПЛОХО", "СОВСЕМ ПЛОХО"),  # English alone
    ],
)
def test_english_in_capitals_is_lowered(typed, read):
    assert calm(typed) == (read, typed != read)


@given(st.one_of(st.text(max_size=80), STRESSED))
def test_it_is_done_once_and_tells_whether_it_did_something(text):
    once = calm(text)
    assert calm(once.text) == (once.text, False)
    assert once.emphasis == (once.text != narrow(text))
    assert narrow(narrow(text)) == narrow(text)


@given(STRESSED)
def test_no_word_with_a_digit_changes(text):
    assert [word for word in narrow(text).split() if word.isascii() and not word.isalpha() and word.isalnum()] == [
        word for word in calm(text).text.split() if word.isascii() and not word.isalpha() and word.isalnum()
    ]


@given(st.text(max_size=80))
def test_narrowing_is_what_unicode_says_of_those_characters(text):
    assert unicodedata.normalize("NFKC", narrow(text)) == unicodedata.normalize("NFKC", text.strip())
