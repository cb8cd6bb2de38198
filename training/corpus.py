"""The data files, read into plain texts. Knows where a row comes from and whether it may be trained on.

The schema of the files is told in README.md. Rows whose part is not "train" are for looking only.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SENTIMENT_FILES = ("sentiment_zh.jsonl.gz", "sentiment_en.jsonl.gz")
SUPPORT_FILE = "chat_zh_support.jsonl.gz"
INSTRUCTION_FILES = {"zh": "chat_zh_misc.jsonl.gz", "en": "chat_en_misc.jsonl.gz"}
SPOKEN_REQUESTS_FILE = "prompts_zh_assistant.txt"
GATES = {  # what is reported: name -> sources whose dev rows it counts
    "shops": ("online_shopping_10_cats", "waimai_10k"),
    "weibo": ("smp2020_usual",),
    "films": ("sst2",),
}

# Not for a small model's mouth, beyond what the chat task's own rule already takes away.
SENSITIVE = re.compile("猥亵|强奸|性侵|家暴|虐待|死|自卑到|抑郁症|抗抑郁|吃药|伤害")
# The world answers these itself: greetings, thanks, who-are-you, feelings.
OWN_GROUND = re.compile("[你您]|谢|再见|拜拜|晚安|早安|心情|难过|开心|无聊|我(好|很|太|真)")


class MissingData(Exception):
    """The folder of training data lacks a file."""


@dataclass(frozen=True)
class Labelled:
    """A text, its label's name, and the set it comes from."""

    text: str
    label: str
    source: str


def check_folder(folder: Path) -> None:
    """Raises MissingData naming the files that are not there."""
    wanted = (*SENTIMENT_FILES, SUPPORT_FILE, *INSTRUCTION_FILES.values(), SPOKEN_REQUESTS_FILE)
    missing = [name for name in wanted if not (folder / name).is_file()]
    if missing:
        raise MissingData(f"{folder} lacks {', '.join(missing)}: give the folder of the training data with --data")


def sentiment_rows(folder: Path, part: str) -> list[Labelled]:
    """Rows of one part ("train" or "dev") of all sentiment files, in file order."""
    return [
        Labelled(row["text"], row["label"], row["src"])
        for name in SENTIMENT_FILES
        for row in _rows(folder / name)
        if row["part"] == part
    ]


def support_exchanges(folder: Path, forbidden: Sequence[re.Pattern[str]]) -> list[tuple[str, ...]]:
    """The first one or two exchanges of the supportive dialogues, as (user, assistant, ...); sensitive ones are out."""
    patterns = (*forbidden, SENSITIVE)
    exchanges: list[tuple[str, ...]] = []
    for row in _rows(folder / SUPPORT_FILE):
        texts = tuple(text for _, text in row["turns"])
        kept = texts[:4] if len(exchanges) % 3 == 0 and len(texts) >= 4 else texts[:2]
        if all(len(text) <= 70 for text in kept) and not any(p.search(t) for p in patterns for t in texts):
            exchanges.append(kept)
    return exchanges


def requests(folder: Path, language: str) -> list[str]:
    """Questions that lie outside the little world: instructions, and what people ask a phone assistant for."""
    texts = [
        row["turns"][0][1] for row in _rows(folder / INSTRUCTION_FILES[language]) if row["src"].startswith("alpaca")
    ]
    if language == "zh":
        spoken = (folder / SPOKEN_REQUESTS_FILE).read_text(encoding="utf-8").splitlines()
        texts += [text for text in spoken if len(text) >= 4 and not OWN_GROUND.search(text)]
    limit = 45 if language == "zh" else 110
    return [text for text in texts if 0 < len(text) <= limit]


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)
