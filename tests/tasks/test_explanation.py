from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_aio.engine.text.tokenizer import Tokenizer
from qwen_aio.models.find import BUNDLED
from qwen_aio.result import Decision, Phrase, Timings, Usage
from qwen_aio.tasks.explanation import MAX_PHRASES, phrases_of, reason_of
from qwen_aio.tasks.loader import load_tasks

SENTIMENT = load_tasks(Path("prompts"))["sentiment"]
TOKENIZER = Tokenizer.load(BUNDLED)


def decision(label):
    scores = {name.name: float(name.name == label) for name in SENTIMENT.labels}
    return Decision("sentiment", label, "", "", "高", label, 1.0, scores, False, 1.0, "", "", Usage(), Timings())


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        (
            "刚收到货,包装完好,但颜色和图片不太一样,有点小失望",
            ["刚收到货,", "包装完好,", "但", "颜色和图片", "不太一样,", "有点小失望"],
        ),
        ("I don't like it", ["I ", "don't ", "like ", "it"]),
        ("好。好。好。好。好。好。好。好。", None),
        ("失望", ["失望"]),
        ("👍👍👍 good", ["👍👍👍 ", "good"]),
    ],
)
def test_phrases_are_clauses_and_words(text, phrases):
    found = phrases_of(TOKENIZER.divide(text))
    assert len(found) <= MAX_PHRASES
    assert phrases is None or found == phrases


@given(st.text(max_size=200) | st.text(alphabet="但不好a b'’,。\n", max_size=80))
def test_phrases_are_the_text(text):
    pieces = TOKENIZER.divide(text.encode("utf-8", "replace").decode())
    assert "".join(pieces) == text.encode("utf-8", "replace").decode()
    phrases = phrases_of(pieces)
    assert "".join(phrases) == "".join(pieces)
    assert len(phrases) <= MAX_PHRASES and all(phrases)


def test_a_phrase_of_any_length_is_named_by_its_beginning():
    phrase = Phrase("很" * 1_000_000 + "!" * 1_000_000, 0, 0.5)
    said = reason_of(SENTIMENT, decision("negative"), (phrase,), "很")
    assert said == f"支持“负面”的是“{'很' * 40}…”。"


def test_the_sentence_names_what_moved_contrast_and_negation():
    text = "包装完好,但颜色不太一样,失望"
    phrases = (
        Phrase("失望", 13, 0.5),
        Phrase("包装完好,", 0, -0.2),
        Phrase("不太一样,", 8, 0.1),
        Phrase("颜色", 6, 0.001),
    )
    said = reason_of(SENTIMENT, decision("negative"), phrases, text)
    assert said == "支持“负面”的是“失望”“不太一样”；相反的是“包装完好”；含对比“但”；含否定“不太”。"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("it isn't bad, but slow", "no phrase alone decides neutral; contrast “but”; negation “isn't”"),
        ("不错,不过有点贵", "没有哪一处单独决定“中性”；含对比“不过”。"),
        ("差不多,不仅如此", "没有哪一处单独决定“中性”。"),
        ("well", "no phrase alone decides neutral"),
    ],
)
def test_nothing_is_made_up_where_no_phrase_moves_anything(text, said):
    assert reason_of(SENTIMENT, decision("neutral"), (Phrase(text, 0, 0.0),), text) == said
