"""The texts that crisis detection is measured with: enough of them, each once, in the shape the README promises."""

import gzip
import json
import re
import unicodedata
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.safety import ordinary
from benchmarks.safety.ordinary import Pool
from qwen_aio.routing import find_danger
from qwen_aio.tasks.loader import load_tasks
from training import corpus
from training.corpus import MissingData, fingerprint

AT_LEAST = {"crisis": 150, "medical": 80, "harmless": 200}
KINDS = {
    "crisis": {
        *("hopelessness", "farewell", "self_harm", "overdose_happened", "burden", "plan", "third_party", "indirect"),
        *("disguised", "slang", "typos", "mixed_language", "long", "second_turn"),
    },
    "medical": {
        *("chest_pain", "stroke", "swallowed", "allergy", "bleeding", "unconscious", "poisoning", "burn", "choking"),
        *("seizure", "gas", "breathing", "other_urgent"),
    },
    "harmless": {
        *("idiom", "film_book", "product", "game", "work", "sport", "food", "animals", "news", "medical_past"),
        *("question", "mild_sadness", "help_seeking_ok"),
    },
}
OWN_KINDS = {"zh": {"traditional"}, "en": set()}


def written(language):
    return [json.loads(line) for line in (corpus.SAFETY / f"{language}.jsonl").read_text("utf-8").splitlines()]


def bare(text):
    """Without what two copies of a text may differ in: case, width, spaces, punctuation."""
    return re.sub(r"[\W_]", "", unicodedata.normalize("NFKC", text).casefold())


@pytest.mark.parametrize("language", ["zh", "en"])
def test_every_family_and_kind_has_its_texts(language):
    rows = written(language)
    families = Counter(row["family"] for row in rows)
    assert all(families[family] >= count for family, count in AT_LEAST.items())
    expected = {**KINDS, "crisis": KINDS["crisis"] | OWN_KINDS[language]}
    assert {family: {row["kind"] for row in rows if row["family"] == family} for family in families} == expected
    assert all(200 <= len(row["text"]) <= 500 for row in rows if row["kind"] == "long")


@pytest.mark.parametrize("language", ["zh", "en"])
def test_every_line_has_the_shape(language):
    for row in written(language):
        assert {"family", "kind", "text"} <= row.keys() <= {"family", "kind", "text", "earlier"}
        turns = [row["text"], *row.get("earlier", [])]
        assert all(isinstance(text, str) and text == text.strip() != "" for text in turns)
        assert ("earlier" in row) or row["kind"] != "second_turn"


def test_no_text_is_there_twice():
    texts = Counter(bare(row["text"]) for language in ("zh", "en") for row in written(language))
    assert [text for text, count in texts.items() if count > 1] == []


def test_the_ordinary_rows_are_listed_by_fingerprint_alone():
    listed = ordinary.LIST.read_text("utf-8").splitlines()
    assert len(listed) == sum(pool.count for pool in ordinary.POOLS) == 2000
    assert listed == sorted(set(listed) - ordinary.NOT_ORDINARY)
    assert all(re.fullmatch("[0-9a-f]{16}", mark) for mark in listed)


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Two small files, and pools that look into them."""
    sentiment = [{"src": "a", "part": part, "text": f"{part} row {n}"} for part in ("train", "dev") for n in range(5)]
    turns = [["user", "what is a sonnet"], ["assistant", "fourteen lines"], ["user", "ok"]]
    chats = [{"src": "b", "turns": turns}, {"src": "c", "turns": [["user", "of another source"]]}]
    for name, rows in (("sentiment.gz", sentiment), ("chat.gz", chats)):
        with gzip.open(tmp_path / name, "wt", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    monkeypatch.setattr(ordinary, "POOLS", (Pool(3, "sentiment.gz"), Pool(9, "chat.gz", ("b",))))
    monkeypatch.setattr(ordinary, "LIST", tmp_path / "ordinary.txt")
    return tmp_path


def test_what_is_picked_is_what_a_user_wrote_and_no_training_saw(data, monkeypatch):
    dev = sorted(fingerprint(f"dev row {n}") for n in range(5))
    assert ordinary.pick(data) == sorted([*dev[:3], fingerprint("what is a sonnet")])
    monkeypatch.setattr(ordinary, "NOT_ORDINARY", frozenset(dev[:1]))
    assert ordinary.pick(data) == sorted([*dev[1:4], fingerprint("what is a sonnet")])


def test_the_listed_rows_come_back_from_the_data(data):
    ordinary.LIST.write_text("\n".join(ordinary.pick(data)), "utf-8")
    assert len(ordinary.rows(data)) == 4
    assert "what is a sonnet" in ordinary.rows(data)
    ordinary.LIST.write_text(fingerprint("nowhere"), "utf-8")
    with pytest.raises(MissingData, match="lacks 1 of the 1 rows"):
        ordinary.rows(data)


@pytest.mark.parametrize("page", ["docs/safety.md", "docs/safety.zh-CN.md"])
def test_the_page_says_how_little_the_word_rule_finds(page):
    tasks = load_tasks(Path("prompts"))
    met, total = Counter(), Counter()
    for row in (*written("zh"), *written("en")):
        total[row["family"]] += 1
        met[row["family"]] += find_danger([*row.get("earlier", ()), row["text"]], tasks) is not None
    stated = [int(number) for number in re.findall(r"\d+", Path(page).read_text("utf-8"))]
    assert {met["crisis"], total["crisis"], met["harmless"], total["harmless"]} <= set(stated)
