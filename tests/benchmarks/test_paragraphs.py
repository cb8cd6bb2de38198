"""The paragraphs that summaries are measured with: both languages, of the promised length, and none trained on."""

import json
from pathlib import Path

PARAGRAPHS = Path("benchmarks/chat/paragraphs.jsonl")


def test_paragraphs_are_twenty_in_two_languages_of_fair_length() -> None:
    rows = [json.loads(line) for line in PARAGRAPHS.read_text(encoding="utf-8").splitlines()]
    chinese = [row["text"] for row in rows if row["language"] == "zh"]
    english = [row["text"] for row in rows if row["language"] == "en"]
    assert len(chinese) == len(english) == 10
    assert all(150 <= len(text) <= 500 for text in chinese)
    assert all(80 <= len(text.split()) <= 200 for text in english)
    assert len({row["text"] for row in rows}) == len(rows)


def test_no_training_code_reads_the_paragraphs() -> None:
    assert not [path for path in Path("training").rglob("*.py") if "paragraphs" in path.read_text(encoding="utf-8")]
